# ruff: noqa: PT009 - Django's test runner does not explain a plain assert
from django.contrib.auth.models import Group, User
from django.test import Client, TestCase, override_settings

from chatserver.tests.redis_listener import listening

AS_SCRIPT = {'accept': 'application/json'}


class PostingTest(TestCase):
    fixtures = ['data']

    def login(self, name):
        self.client.force_login(User.objects.get(username=name))

    def test_a_guest_s_message_goes_to_everyone(self):
        with listening() as redis:
            answer = self.client.post('/chat/', {'message': 'Hi', 'name': 'Ann'})
            self.assertRedirects(answer, '/chat/')
            message = redis.receive(1)['broadcast:foobar']
        self.assertEqual((message.text, message.sender), ('Hi', 'Ann'))

    def test_a_guest_needs_no_name(self):
        with listening() as redis:
            self.client.post('/chat/', {'message': 'Hi'})
            self.assertEqual(redis.receive(1)['broadcast:foobar'].sender, 'Guest')

    def test_who_is_logged_in_cannot_choose_a_name(self):
        self.login('john')
        with listening() as redis:
            self.client.post('/chat/', {'message': 'Hi', 'name': 'mary'})
            self.assertEqual(redis.receive(1)['broadcast:foobar'].sender, 'john')

    def test_a_message_to_a_user_goes_to_both(self):
        self.login('john')
        with listening() as redis:
            answer = self.client.post('/userchat/', {'user': 'mary', 'message': 'Psst'})
            self.assertRedirects(answer, '/userchat/')
            messages = redis.receive(2)
        self.assertEqual(set(messages), {'user:john:foobar', 'user:mary:foobar'})
        for message in messages.values():
            self.assertEqual(
                (message.text, message.sender, message.recipient), ('Psst', 'john', 'mary')
            )

    def test_a_message_to_a_group_goes_to_the_group(self):
        self.login('mary')
        with listening() as redis:
            answer = self.client.post('/groupchat/', {'group': 'chatters', 'message': 'All!'})
            self.assertRedirects(answer, '/groupchat/')
            message = redis.receive(1)['group:chatters:foobar']
        self.assertEqual(
            (message.text, message.sender, message.recipient), ('All!', 'mary', 'chatters')
        )

    def test_a_script_gets_the_identifier_of_its_message(self):
        self.login('john')
        with listening() as redis:
            answer = self.client.post(
                '/groupchat/', {'group': 'chatters', 'message': 'Hi'}, headers=AS_SCRIPT
            )
            self.assertEqual(answer.json(), {'id': redis.receive(1)['group:chatters:foobar'].id})

    def test_a_message_that_cannot_be_sent_is_refused_and_kept_in_the_form(self):
        Group.objects.create(name='others')
        self.login('john')
        for path, form in (
            ('/chat/', {'message': ''}),
            ('/chat/', {'message': 'x' * 1001}),
            ('/userchat/', {'message': 'Hi'}),
            ('/userchat/', {'message': 'Hi', 'user': 'nobody'}),
            ('/userchat/', {'message': 'Hi', 'user': 'john'}),
            ('/groupchat/', {'message': 'Hi', 'group': 'others'}),
        ):
            with self.subTest(path=path, form=form), listening() as redis:
                answer = self.client.post(path, form, headers=AS_SCRIPT)
                self.assertEqual(answer.status_code, 400)
                self.assertTrue(answer.json()['error'])
                page = self.client.post(path, form)
                self.assertContains(page, f'value="{form["message"]}"', status_code=400)
                redis.receive(0)

    def test_who_is_not_logged_in_cannot_post_to_users_and_groups(self):
        for path in ('/userchat/', '/groupchat/'):
            form = {'message': 'Hi', 'user': 'mary', 'group': 'chatters'}
            with listening() as redis:
                self.assertRedirects(self.client.post(path, form), f'/login/?next={path}')
                answer = self.client.post(path, form, headers=AS_SCRIPT)
                self.assertContains(answer, 'log in', status_code=403)
                redis.receive(0)

    def test_a_post_needs_the_csrf_token(self):
        strict = Client(enforce_csrf_checks=True)
        strict.force_login(User.objects.get(username='john'))
        form = {'message': 'Hi', 'user': 'mary', 'group': 'chatters'}
        for path in ('/chat/', '/userchat/', '/groupchat/'):
            with listening() as redis:
                self.assertEqual(strict.post(path, form).status_code, 403, path)
                redis.receive(0)
                strict.get(path)
                token = strict.cookies['csrftoken'].value
                self.assertEqual(
                    strict.post(path, {**form, 'csrfmiddlewaretoken': token}).status_code, 302
                )

    @override_settings(WS4REDIS_CONNECTION={'host': '127.0.0.1', 'port': 1})
    def test_without_redis_the_sender_is_told(self):
        answer = self.client.post('/chat/', {'message': 'Lost?'}, headers=AS_SCRIPT)
        self.assertContains(answer, 'was not sent', status_code=503)
        page = self.client.post('/chat/', {'message': 'Lost?'})
        self.assertContains(page, 'was not sent', status_code=503)
        self.assertContains(page, 'value="Lost?"', status_code=503)
