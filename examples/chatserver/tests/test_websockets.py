# ruff: noqa: PT009 - Django's test runner does not explain a plain assert
from contextlib import ExitStack
from unittest import skipUnless

from django.contrib.auth.models import User
from django.contrib.staticfiles.testing import StaticLiveServerTestCase
from django.test import Client

from chatserver.chat_messages import ChatMessage
from ws4redis.django_runserver import application
from ws4redis.publisher import RedisPublisher

try:
    from websockets.sync.client import connect
except ImportError:
    connect = None

WAIT_SECONDS = 10


@skipUnless(connect, 'the package websockets is not installed')
class WebsocketTest(StaticLiveServerTestCase):
    """Views and websockets together, in one live server."""

    fixtures = ['data']

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server_thread.httpd.set_app(application)

    def setUp(self):
        RedisPublisher()._connection.flushall()
        self.cleanup = ExitStack()
        self.addCleanup(self.cleanup.close)

    def client_of(self, name):
        client = Client()
        client.force_login(User.objects.get(username=name))
        return client

    def websocket(self, options, client=None):
        url = f'ws{self.live_server_url.removeprefix("http")}/ws/foobar?{options}'
        headers = {}
        if client is not None:
            headers['Cookie'] = f'sessionid={client.cookies["sessionid"].value}'
        return self.cleanup.enter_context(connect(url, additional_headers=headers))

    def receive(self, websocket):
        """Return the next message that is no heartbeat."""
        payload = websocket.recv(timeout=WAIT_SECONDS)
        while payload == '--heartbeat--':
            payload = websocket.recv(timeout=WAIT_SECONDS)
        return ChatMessage.from_payload(payload.encode())

    def assert_nothing_but(self, text, websocket, publisher):
        """Assert that the next message is one that is published only now."""
        publisher.publish_message(ChatMessage(text=text).to_json())
        self.assertEqual(self.receive(websocket).text, text)

    def test_a_post_reaches_every_guest(self):
        guests = [self.websocket('subscribe-broadcast') for _guest in range(3)]
        Client().post('/chat/', {'message': 'Hello', 'name': 'Ann'})
        for guest in guests:
            message = self.receive(guest)
            self.assertEqual((message.text, message.sender), ('Hello', 'Ann'))

    def test_a_guest_publishes_to_all_by_websocket(self):
        one = self.websocket('subscribe-broadcast&publish-broadcast&echo')
        other = self.websocket('subscribe-broadcast')
        one.send(ChatMessage(text='Hello', sender='Ann').to_json())
        for websocket in (one, other):
            self.assertEqual(self.receive(websocket).text, 'Hello')

    def test_a_post_to_a_user_reaches_both_and_nobody_else(self):
        john, mary, admin = (self.client_of(name) for name in ('john', 'mary', 'admin'))
        websockets = [self.websocket('subscribe-user', client) for client in (john, mary)]
        third = self.websocket('subscribe-user', admin)
        john.post('/userchat/', {'user': 'mary', 'message': 'Psst'})
        for websocket in websockets:
            self.assertEqual(self.receive(websocket).text, 'Psst')
        self.assert_nothing_but(
            'for admin', third, RedisPublisher(facility='foobar', users=['admin'])
        )

    def test_a_post_to_a_group_reaches_its_members(self):
        john, mary = self.client_of('john'), self.client_of('mary')
        websockets = [self.websocket('subscribe-group', client) for client in (john, mary)]
        mary.post('/groupchat/', {'group': 'chatters', 'message': 'All!'})
        for websocket in websockets:
            self.assertEqual(self.receive(websocket).text, 'All!')

    def test_a_guest_hears_nothing_of_users_and_groups(self):
        guest = self.websocket('subscribe-user&subscribe-group&subscribe-broadcast')
        john = self.client_of('john')
        john.post('/userchat/', {'user': 'mary', 'message': 'Psst'})
        john.post('/groupchat/', {'group': 'chatters', 'message': 'All!'})
        self.assert_nothing_but(
            'for everyone', guest, RedisPublisher(facility='foobar', broadcast=True)
        )

    def test_nobody_publishes_to_users_and_groups_by_websocket(self):
        john, mary = self.client_of('john'), self.client_of('mary')
        listener = self.websocket('subscribe-user&subscribe-group', mary)
        sender = self.websocket('publish-group&publish-user&subscribe-group&echo', john)
        sender.send(ChatMessage(text='forged', sender='admin').to_json())
        # A ping is answered after what was sent before it has been dealt with.
        sender.ping().wait(WAIT_SECONDS)
        self.assert_nothing_but(
            'for the group', listener, RedisPublisher(facility='foobar', groups=['chatters'])
        )
