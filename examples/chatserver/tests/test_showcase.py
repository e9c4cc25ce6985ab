# ruff: noqa: PT009 - Django's test runner does not explain a plain assert
import os
import signal
import threading
from unittest.mock import patch

from django.contrib.auth.models import User
from django.test import Client, TestCase, override_settings
from showcase import breaking
from showcase.models import Order, Task

from ws4redis.history import history
from ws4redis.live import unread_notifications

AS_SCRIPT = {'accept': 'application/json'}
UNDER_DEMO = {'DEBUG': True, 'DEMO_RESTARTS_SERVER': True, 'DEMO_OWNS_REDIS': True}


class ShowcaseTest(TestCase):
    fixtures = ['data']

    def login(self, name):
        self.client.force_login(User.objects.get(username=name))

    def test_all_pages_open_for_guests_but_the_inbox(self):
        for path in (
            '/',
            '/room/',
            '/room/kitchen/',
            '/stream/',
            '/tasks/',
            '/orders/',
            '/tokens/',
        ):
            self.assertEqual(self.client.get(path).status_code, 200, path)
        self.assertRedirects(self.client.get('/notifications/'), '/login/?next=/notifications/')
        self.assertEqual(self.client.get('/room/nowhere/').status_code, 404)

    @override_settings(WS4REDIS_CONNECTION={'host': '127.0.0.1', 'port': 1})
    def test_rooms_open_while_redis_is_away_and_say_so(self):
        self.assertContains(self.client.get('/room/'), 'Redis cannot be reached')
        answer = self.client.post('/room/', {'message': 'Hi'}, headers=AS_SCRIPT)
        self.assertContains(answer, 'was not sent', status_code=503)

    def test_a_post_to_a_room_is_in_its_past_under_the_name_of_its_writer(self):
        self.login('john')
        self.client.post('/room/releases/', {'message': '<b>1.0</b>', 'sender': 'mary'})
        (message,) = history('room/releases', limit=1, reverse=True).messages
        self.assertEqual((message.value['text'], message.value['sender']), ('<b>1.0</b>', 'john'))
        self.assertContains(self.client.get('/room/releases/'), '&lt;b&gt;1.0&lt;/b&gt;')

    def test_a_guest_keeps_a_name(self):
        names = {self.client.get('/room/').context['name'] for _visit in range(2)}
        self.assertEqual(len(names), 1)

    def test_orders_change_within_bounds(self):
        order = Order.objects.create(item='Cups', quantity=1)
        for change, expected in (
            ('less', (1, 'new')),
            ('more', (2, 'new')),
            ('advance', (2, 'packed')),
            ('advance', (2, 'sent')),
            ('advance', (2, 'sent')),
        ):
            answer = self.client.post(f'/orders/{order.pk}/{change}/', headers=AS_SCRIPT)
            self.assertEqual(answer.status_code, 200)
            order.refresh_from_db()
            self.assertEqual((order.quantity, order.state), expected)
        self.client.post(f'/orders/{order.pk}/remove/')
        self.assertFalse(Order.objects.filter(pk=order.pk).exists())
        self.assertEqual(self.client.post(f'/orders/{order.pk}/more/').status_code, 404)

    def test_nonsense_is_refused_with_a_reason(self):
        self.login('john')
        for path, form in (
            ('/orders/', {'item': '', 'quantity': '1'}),
            ('/orders/', {'item': 'Cups', 'quantity': '1000'}),
            ('/tasks/', {'kind': 'nothing'}),
            ('/notifications/', {'user': 'nobody', 'level': 'info', 'text': 'Hi'}),
            ('/notifications/', {'user': 'mary', 'level': 'info', 'text': 'x' * 121}),
            ('/room/', {'message': ''}),
        ):
            with self.subTest(path=path, form=form):
                answer = self.client.post(path, form, headers=AS_SCRIPT)
                self.assertEqual(answer.status_code, 400)
                self.assertTrue(answer.json()['error'])
                self.assertContains(self.client.post(path, form), 'Not done', status_code=400)

    def test_a_notification_waits_until_it_is_read(self):
        self.login('john')
        form = {'user': 'mary', 'level': 'warning', 'text': 'Lunch?'}
        with self.captureOnCommitCallbacks(execute=True):
            self.client.post('/notifications/', form)
        self.assertEqual([n['text'] for n in unread_notifications('mary')], ['Lunch?'])
        self.login('mary')
        self.assertContains(self.client.get('/notifications/'), 'Lunch?')
        self.client.post('/notifications/', {'read': 'all'})
        self.assertEqual(unread_notifications('mary'), [])

    def test_no_more_tasks_run_than_there_is_room_for(self):
        started = threading.Event()

        def wait(progress):
            started.wait(30)

        with patch.dict('showcase.tasks.TASKS', {Task.Kind.CHECKSUM: wait}):
            codes = [
                self.client.post('/tasks/', {'kind': 'checksum'}, headers=AS_SCRIPT).status_code
                for _task in range(5)
            ]
            started.set()
            for thread in threading.enumerate():
                if thread.name.startswith('task/'):
                    thread.join(30)
        self.assertEqual(codes, [200, 200, 200, 200, 429])


class BreakingTest(TestCase):
    """What breaks things is behind DEBUG, POST, CSRF, and a demo that mends it."""

    def statuses(self, method='post'):
        client = Client()
        return {way: getattr(client, method)(f'/break/{way}/').status_code for way in breaking.WAYS}

    def test_nothing_is_broken_without_debug_or_by_a_get(self):
        with patch.dict(breaking.WAYS, dict.fromkeys(breaking.WAYS, self.fail)):
            with override_settings(**{**UNDER_DEMO, 'DEBUG': False}):
                self.assertEqual(set(self.statuses().values()), {403})
            with override_settings(**UNDER_DEMO):
                self.assertEqual(set(self.statuses('get').values()), {405})
                strict = Client(enforce_csrf_checks=True)
                for way in breaking.WAYS:
                    self.assertEqual(strict.post(f'/break/{way}/').status_code, 403)

    def test_no_page_of_another_site_breaks_anything(self):
        client = Client(enforce_csrf_checks=True)
        host = 'localhost:8000'
        own = {'Host': host, 'Origin': f'http://{host}'}
        client.get('/break/', headers={'Host': host})
        token = client.cookies['csrftoken'].value
        broken = []
        ways = {way: (lambda request, way=way: broken.append(way)) for way in breaking.WAYS}

        def status(way, headers, data):
            return client.post(f'/break/{way}/', data, headers=headers).status_code

        with patch.dict(breaking.WAYS, ways), override_settings(**UNDER_DEMO):
            for way in breaking.WAYS:
                for origin in ('http://evil.example', 'http://localhost:9000', 'null'):
                    headers = {'Host': host, 'Origin': origin}
                    data = {'csrfmiddlewaretoken': token}
                    self.assertEqual(status(way, headers, data), 403)
                self.assertEqual(status(way, own, {}), 403)
                self.assertEqual(status(way, own, {'csrfmiddlewaretoken': 'x' * 64}), 403)
                for method in (client.get, client.head, client.put, client.delete):
                    self.assertIn(method(f'/break/{way}/', headers=own).status_code, {403, 405})
            self.assertEqual(broken, [])
            # The page's own form may.
            self.assertEqual(status('cut', own, {'csrfmiddlewaretoken': token}), 302)
            self.assertEqual(broken, ['cut'])

    @override_settings(DEBUG=True)
    def test_only_the_demo_s_own_things_are_broken(self):
        ways = {way: (lambda request: None) for way in breaking.WAYS}
        with patch.dict(breaking.WAYS, ways):
            self.assertEqual(
                self.statuses(), {'cut': 302, 'kill': 403, 'restart': 403, 'forget': 403}
            )
            self.assertContains(Client().get('/break/'), 'not the demo’s own')
            with override_settings(**UNDER_DEMO):
                self.assertEqual(set(self.statuses().values()), {302})

    def test_this_very_process_is_killed(self):
        killed = []
        done = threading.Event()

        def kill(*args):
            killed.append(args)
            done.set()

        with patch('os.kill', kill):
            breaking.kill(None)
            self.assertTrue(done.wait(30))
        self.assertEqual(killed, [(os.getpid(), signal.SIGKILL)])
