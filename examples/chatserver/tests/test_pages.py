# ruff: noqa: PT009 - Django's test runner does not explain a plain assert
import re
from pathlib import Path

from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.contrib.staticfiles import finders
from django.test import TestCase, override_settings

import chatserver
from chatserver.chat_messages import ChatMessage
from ws4redis.publisher import RedisPublisher

CHATS = ('/chat/', '/userchat/', '/groupchat/')


class FixtureTest(TestCase):
    fixtures = ['data']

    def test_everybody_can_log_in(self):
        for name in ('admin', 'john', 'mary'):
            self.assertIsNotNone(authenticate(username=name, password='secret'), name)

    def test_admin_alone_is_superuser(self):
        superusers = User.objects.filter(is_superuser=True)
        self.assertEqual([user.username for user in superusers], ['admin'])

    def test_everybody_can_log_in_through_the_admin(self):
        for name in ('admin', 'john', 'mary'):
            answer = self.client.post(
                '/admin/login/?next=/userchat/', {'username': name, 'password': 'secret'}
            )
            self.assertRedirects(answer, '/userchat/')
            self.client.logout()

    def test_john_and_mary_are_chatters(self):
        chatters = User.objects.filter(groups__name='chatters').order_by('username')
        self.assertEqual([user.username for user in chatters], ['john', 'mary'])


class PagesTest(TestCase):
    fixtures = ['data']

    def setUp(self):
        RedisPublisher()._connection.flushall()

    def login(self, name):
        self.client.force_login(User.objects.get(username=name))

    def test_all_may_open_index_login_and_broadcast_chat(self):
        for path in ('/', '/login/', '/chat/'):
            self.assertEqual(self.client.get(path).status_code, 200, path)

    def test_the_other_chats_want_a_login(self):
        for path in ('/userchat/', '/groupchat/'):
            self.assertRedirects(self.client.get(path), f'/login/?next={path}')

    def test_logging_in_leads_back_to_the_chat(self):
        answer = self.client.post(
            '/login/?next=/userchat/',
            {'username': 'john', 'password': 'secret', 'next': '/userchat/'},
        )
        self.assertRedirects(answer, '/userchat/')

    def test_logging_out_is_a_post(self):
        self.login('john')
        self.assertEqual(self.client.get('/logout/').status_code, 405)
        self.assertRedirects(self.client.post('/logout/'), '/')
        self.assertRedirects(self.client.get('/userchat/'), '/login/?next=/userchat/')

    def test_each_page_names_its_websocket(self):
        self.login('john')
        for path, options in zip(
            CHATS,
            (
                'subscribe-broadcast&amp;publish-broadcast&amp;echo',
                'subscribe-user',
                'subscribe-group',
            ),
            strict=True,
        ):
            page = self.client.get(path, headers={'host': 'localhost'})
            self.assertContains(page, f'data-websocket-uri="ws://localhost/ws/foobar?{options}"')
            self.assertContains(page, 'data-heartbeat="&quot;--heartbeat--&quot;"')

    @override_settings(WS4REDIS_HEARTBEAT=None)
    def test_a_page_without_heartbeat_says_null(self):
        self.assertContains(self.client.get('/chat/'), 'data-heartbeat="null"')

    def test_users_are_offered_all_other_users(self):
        self.login('john')
        page = self.client.get('/userchat/').content.decode()
        self.assertEqual(re.findall(r'name="user" value="(\w+)"', page), ['mary', 'admin'])

    def test_users_are_offered_their_own_groups(self):
        self.login('john')
        page = self.client.get('/groupchat/').content.decode()
        self.assertEqual(re.findall(r'name="group" value="(\w+)"', page), ['chatters'])
        self.login('admin')
        self.assertContains(self.client.get('/groupchat/'), 'You are in no group')

    def test_the_kept_message_is_in_the_page(self):
        self.login('mary')
        for path, audience in zip(
            CHATS, ({'broadcast': True}, {'users': ['mary']}, {'groups': ['chatters']}), strict=True
        ):
            message = ChatMessage(text=f'kept for {path}', sender='john')
            RedisPublisher(facility='foobar', **audience).publish_message(message.to_json())
            self.assertContains(self.client.get(path), f'kept for {path}')

    def test_a_kept_message_is_text_whatever_it_holds(self):
        attack = '<script>alert(1)</script>'
        for payload in (attack, ChatMessage(text=attack, sender=attack, id=attack).to_json()):
            RedisPublisher(facility='foobar', broadcast=True).publish_message(payload)
            page = self.client.get('/chat/')
            self.assertNotContains(page, attack)
            self.assertContains(page, '&lt;script&gt;alert(1)&lt;/script&gt;')

    def test_commands_for_the_terminal_hide_where_redis_is_unless_we_debug(self):
        self.assertContains(self.client.get('/chat/'), 'redis-cli publish broadcast:foobar')
        with override_settings(DEBUG=True):
            self.assertContains(self.client.get('/chat/'), '/redis.sock publish broadcast:foobar')

    @override_settings(WS4REDIS_CONNECTION={'host': '127.0.0.1', 'port': 1})
    def test_pages_open_while_redis_is_away(self):
        self.assertContains(self.client.get('/chat/'), 'No messages yet')


class ContentSecurityTest(TestCase):
    fixtures = ['data']

    def test_each_page_has_a_policy_without_exceptions(self):
        for path in ('/', '/login/', '/chat/', '/admin/login/', '/nowhere/'):
            policy = self.client.get(path).headers['Content-Security-Policy']
            self.assertIn("default-src 'none'", policy)
            self.assertNotIn('unsafe', policy)

    def test_no_template_has_inline_scripts_styles_or_handlers(self):
        templates = list(Path(chatserver.__file__).parent.parent.glob('*/templates/**/*.html'))
        self.assertGreaterEqual(len(templates), 20)
        for template in templates:
            source = template.read_text(encoding='utf-8')
            self.assertNotRegex(source, r'<script(?![^>]* src=)', template.name)
            self.assertNotRegex(source, r'<style|\sstyle=|\son\w+=|javascript:', template.name)

    def test_scripts_and_styles_are_found(self):
        for name in ('js/ws4redis.js', 'chatserver/chat.js', 'chatserver/demo.css'):
            self.assertIsNotNone(finders.find(name), name)
