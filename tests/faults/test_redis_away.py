"""Redis goes away and comes back: websockets stay open, and nothing that could be kept is lost."""

from __future__ import annotations

import re
import threading
import time

import pytest

from tests.faults.observed import ObservedServer
from tests.free_ports import free_port
from tests.hub.rig import Clock, Home
from tests.programs import RedisServer
from tests.timeouts import SERVER_SECONDS, scaled, wait_until
from tests.websocket_client import HandshakeRefused, RawWebSocket, WebSocketCrowd
from ws4redis.broker.link import retry_delay

BOTH = 'subscribe-broadcast&publish-broadcast&echo'
# The bus tries again after 5 seconds at most, and then has to connect.
BACK_SECONDS = scaled(12)


def subscribers(redis_server: RedisServer, channel: str) -> int:
    with redis_server.client() as client:
        return int(client.pubsub_numsub(channel)[0][1])


def wait_for_subscriber(redis_server: RedisServer, channel: str = 'broadcast:foo') -> None:
    wait_until(
        lambda: subscribers(redis_server, channel) == 1,
        timeout=BACK_SECONDS,
        message=f'the bus did not subscribe to {channel}',
    )


@pytest.mark.parametrize('end', ['stop', 'kill'])
def test_websockets_stay_open_while_redis_restarts_and_get_what_is_published_afterwards(
    end: str,
) -> None:
    with RedisServer() as redis_server, ObservedServer(redis_server) as server:
        urls = [server.url_of('foo'), server.url_of('bar'), server.url_of('a/b')]
        with WebSocketCrowd(urls) as websockets:
            # One that was never there would not be counted as made anew.
            server.wait_for_bus()
            getattr(redis_server, end)()
            redis_server.start()
            for number, facility in enumerate(('foo', 'bar', 'a/b')):
                wait_for_subscriber(redis_server, f'broadcast:{facility}')
                with redis_server.client() as client:
                    client.publish(f'broadcast:{facility}', f'to {facility}')
                assert websockets.receive(1 if number == 2 else 0) is not None
            assert websockets.messages == [['to foo'], ['to bar'], ['to a/b']]
            assert websockets.number_open == 3
        # Each connection, that of the bus and that for commands, tries again on its own.
        server.wait_for_statistics(
            lambda statistics: statistics['redis_reconnects'] == 2, timeout=BACK_SECONDS
        )


def test_each_change_of_state_is_logged_once_however_many_attempts_fail() -> None:
    with RedisServer() as redis_server, ObservedServer(redis_server) as server:
        with RawWebSocket(server.url_of()):
            server.wait_for_bus()
            since = server.log_position()
            redis_server.kill()
            server.wait_for_log('cannot connect to Redis .pub/sub.', since=since)
            server.wait_for_log('cannot connect to Redis .commands.', since=since)
            # Several attempts fail meanwhile.
            time.sleep(2)
            redis_server.start()
            server.wait_for_log('connected to Redis again .pub/sub.', since=since)
            server.wait_for_log('connected to Redis again .commands.', since=since)
            log = server.log_text(since)
    for name in ('pub/sub', 'commands'):
        assert len(re.findall(rf'lost the connection to Redis \({name}\)', log)) == 1
        assert len(re.findall(rf'cannot connect to Redis \({name}\)', log)) == 1
        assert len(re.findall(rf'connected to Redis again \({name}\)', log)) == 1


def test_a_kept_message_is_sent_again_only_if_it_differs_from_the_last_one_delivered() -> None:
    with RedisServer() as redis_server, ObservedServer(redis_server) as server:
        same, newer = server.url_of('same'), server.url_of('newer')
        with WebSocketCrowd([same, newer]) as websockets:
            with redis_server.client() as client:
                for name in ('same', 'newer'):
                    client.publish(f'broadcast:{name}', 'first')
                    client.set(f'broadcast:{name}', 'first')
            websockets.receive(1)
            # Only the bus is cut off, as by a broken network; Redis itself lives on.
            with redis_server.client() as client:
                client.set('broadcast:newer', 'published meanwhile')
                assert client.client_kill_filter(_type='pubsub') == 1
            wait_for_subscriber(redis_server, 'broadcast:newer')
            with redis_server.client() as client:
                client.publish('broadcast:same', 'last')
                client.publish('broadcast:newer', 'last')
            websockets.receive(2)
            websockets.receive_for(0.2)
            assert websockets.messages == [
                ['first', 'last'],
                ['first', 'published meanwhile', 'last'],
            ]


def test_a_redis_that_hangs_is_given_up_and_taken_up_again() -> None:
    with RedisServer() as redis_server:
        settings = {
            'WS4REDIS_REDIS_TIMEOUT': 2,
            'WS4REDIS_CONNECTION': {**redis_server.connection, 'socket_timeout': 1},
        }
        with ObservedServer(redis_server, settings) as server:
            with RawWebSocket(server.url_of()) as websocket:
                redis_server.pause()
                # Nothing is sent to it: only the health check finds out.
                server.wait_for_log('no answer for 2 seconds', timeout=scaled(20))
                redis_server.resume()
                server.wait_for_log('connected to Redis again', timeout=SERVER_SECONDS)
                wait_for_subscriber(redis_server)
                with redis_server.client() as client:
                    client.publish('broadcast:foo', 'after the halt')
                assert websocket.receive() == 'after the halt'


@pytest.mark.slow
def test_websockets_stay_open_while_redis_hangs_for_longer_than_every_timeout() -> None:
    settings = {
        'WS4REDIS_REDIS_TIMEOUT': 2,
        'WS4REDIS_PING_INTERVAL': scaled(2),
        'WS4REDIS_PING_TIMEOUT': scaled(2),
    }
    with RedisServer() as redis_server, ObservedServer(redis_server, settings) as server:
        with WebSocketCrowd([server.url_of()] * 20) as websockets:
            redis_server.pause()

            def is_given_up() -> bool:
                # Clients answer pings meanwhile.
                websockets.receive_for(0.1)
                return 'no answer for 2 seconds' in server.log_text()

            wait_until(is_given_up, timeout=scaled(20))
            websockets.receive_for(scaled(10))
            assert websockets.number_open == 20
            redis_server.resume()
            server.wait_for_statistics(lambda s: s['redis_connected'], timeout=BACK_SECONDS)
            wait_for_subscriber(redis_server)
            with redis_server.client() as client:
                client.publish('broadcast:foo', 'after the halt')
            assert websockets.receive(1) == [['after the halt']] * 20


def test_messages_of_clients_wait_for_redis_in_order_and_are_published_when_it_is_back() -> None:
    with RedisServer() as redis_server, ObservedServer(redis_server) as server:
        with RawWebSocket(server.url_of('foo', BOTH)) as websocket:
            server.wait_for_bus()
            redis_server.kill()
            server.wait_for_log('cannot connect')
            for number in range(50):
                websocket.send(f'{number}')
            redis_server.start()
            server.wait_for_statistics(
                lambda s: s['messages_published'] == 50, timeout=BACK_SECONDS
            )
            # They were published when the bus had subscribed again: all have come back.
            websocket.send('last')
            messages = [websocket.receive()]
            while messages[-1] != 'last':
                messages.append(websocket.receive())
            assert messages[:-1] == [f'{number}' for number in range(50)]


def test_a_sender_is_not_read_while_redis_is_away() -> None:
    with RedisServer() as redis_server, ObservedServer(redis_server) as server:
        with RawWebSocket(server.url_of('foo', 'publish-broadcast'), timeout=1) as websocket:
            server.wait_for_bus()
            redis_server.kill()
            server.wait_for_log('cannot connect')
            with pytest.raises(TimeoutError):
                for _ in range(2000):
                    websocket.send('x' * 60_000)
            # TCP holds it back: what arrived is far less than what was tried.
            assert server.statistics()['unpublished_bytes'] < 1_000_000
            assert server.statistics()['messages_not_published'] == {}


def test_a_sender_is_closed_with_1013_when_redis_stays_away_and_others_stay_open() -> None:
    settings = {'WS4REDIS_REDIS_TIMEOUT': 1}
    with RedisServer() as redis_server, ObservedServer(redis_server, settings) as server:
        with (
            RawWebSocket(server.url_of('foo', BOTH)) as sender,
            RawWebSocket(server.url_of('foo', BOTH)) as other,
        ):
            server.wait_for_bus()
            redis_server.kill()
            server.wait_for_log('cannot connect')
            sender.send('not taken')
            assert sender.receive_close() == (1013, 'Redis is not available')
            sender.socket.close()
            redis_server.start()
            wait_for_subscriber(redis_server)
            with redis_server.client() as client:
                client.publish('broadcast:foo', 'again')
            assert other.receive() == 'again'
        statistics = server.wait_for_statistics(lambda s: not s['open'])
        assert statistics['messages_not_published'] == {'1013': 1}
        assert '1013' in statistics['closes']


def test_a_handshake_is_accepted_while_redis_is_away_and_subscribed_when_it_is_back() -> None:
    port = free_port()
    redis_server = RedisServer(port=port)
    with ObservedServer(redis_server) as server:
        # Connections are refused from the start.
        with RawWebSocket(server.url_of()) as websocket:
            server.wait_for_log('cannot connect to Redis')
            with redis_server:
                wait_for_subscriber(redis_server)
                with redis_server.client() as client:
                    client.publish('broadcast:foo', 'at last')
                assert websocket.receive() == 'at last'


def test_a_channel_that_redis_refuses_is_answered_with_503_until_it_is_permitted() -> None:
    with RedisServer() as redis_server:
        with redis_server.client() as client:
            client.execute_command(
                *('ACL', 'SETUSER', 'limited', 'on', '>secret', '~*', '+@all'),
                *('resetchannels', '&broadcast:permitted'),
            )
        connection = {**redis_server.connection, 'username': 'limited', 'password': 'secret'}
        with ObservedServer(redis_server, {'WS4REDIS_CONNECTION': connection}) as server:
            with RawWebSocket(server.url_of('permitted')) as permitted:
                with pytest.raises(HandshakeRefused) as refused:
                    RawWebSocket(server.url_of('refused'))
                assert refused.value.response.status == 503
                server.wait_for_log("refuses to subscribe to b'broadcast:refused'")
                with redis_server.client() as client:
                    client.execute_command('ACL', 'SETUSER', 'limited', 'allchannels')
                with RawWebSocket(server.url_of('refused')) as websocket:
                    wait_for_subscriber(redis_server, 'broadcast:refused')
                    with redis_server.client() as client:
                        client.publish('broadcast:refused', 'permitted now')
                        client.publish('broadcast:permitted', 'as before')
                    assert websocket.receive() == 'permitted now'
                assert permitted.receive() == 'as before'


def test_a_wrong_password_is_logged_and_tried_again_until_it_is_right() -> None:
    with RedisServer(password='right') as redis_server:
        settings = {'WS4REDIS_CONNECTION': {**redis_server.connection, 'password': 'wrong'}}
        with ObservedServer(redis_server, settings) as server:
            with RawWebSocket(server.url_of()) as websocket:
                line = server.wait_for_log('cannot connect to Redis')
                assert 'wrong' not in line.replace('wrong number', '')
                with redis_server.client() as client:
                    client.config_set('requirepass', 'wrong')
                redis_server.password = 'wrong'
                wait_for_subscriber(redis_server)
                with redis_server.client() as client:
                    client.publish('broadcast:foo', 'let in')
                assert websocket.receive() == 'let in'


def test_a_bus_that_redis_cuts_off_for_lagging_comes_back_with_the_kept_message() -> None:
    options = {'client-output-buffer-limit': 'pubsub 1mb 1mb 1'}
    with RedisServer(options=options) as redis_server, ObservedServer(redis_server) as server:
        with RawWebSocket(server.url_of()) as websocket:
            server.wait_for_bus()
            worker = server.worker_pids()[0]
            server.halt_worker(worker)
            with redis_server.client() as client:
                message = b'x' * 500_000
                # The sockets' buffers take some; then Redis gives the bus up.
                wait_until(lambda: client.publish('broadcast:foo', message) == 0)
                client.set('broadcast:foo', 'kept')
            server.continue_worker(worker)
            server.wait_for_log('lost the connection to Redis .pub/sub.')
            messages = [websocket.receive(timeout=BACK_SECONDS)]
            while messages[-1] != 'kept':
                messages.append(websocket.receive(timeout=BACK_SECONDS))
            with redis_server.client() as client:
                wait_for_subscriber(redis_server)
                client.publish('broadcast:foo', 'live')
            assert websocket.receive() == 'live'


def test_a_killed_worker_leaves_nothing_behind_in_redis() -> None:
    with RedisServer() as redis_server, ObservedServer(redis_server) as server:
        with WebSocketCrowd([server.url_of(f'f{number}') for number in range(10)]) as websockets:
            server.wait_for_bus()
            with redis_server.client() as client:
                assert len(client.pubsub_channels('broadcast:*')) == 10
            server.kill_worker()
            websockets.receive_close()
        with redis_server.client() as client:
            wait_until(lambda: client.pubsub_channels('broadcast:*') == [])
            # What processes share stays until it expires.
            assert not client.keys('broadcast:*')
        wait_until(lambda: redis_server.number_of_clients() == 0)
        with RawWebSocket(server.url_of()) as websocket:
            with redis_server.client() as client:
                client.publish('broadcast:foo', 'the next worker serves')
            assert websocket.receive() == 'the next worker serves'


def test_something_that_takes_connections_and_drops_them_is_not_asked_without_a_pause() -> None:
    clock = Clock()
    with Home(clock=clock) as hub:
        for _ in range(10):
            hub.turn(5)
            for number in range(len(hub.redis.peers)):
                hub.redis.hang_up(number)
        # Each of the two connections was made, and once more at once.
        assert len(hub.redis.peers) == 4
        clock.advance(5)
        hub.turn(5)
        assert len(hub.redis.peers) == 6


def test_twenty_processes_do_not_come_back_at_the_same_moment() -> None:
    delays = [retry_delay(attempt) for attempt in range(12) for _ in range(20)]
    assert delays[:20] == [0.0] * 20
    assert max(delays) <= 5.0
    assert min(delays[-20:]) > 2.0
    assert len(set(delays[-20:])) == 20


def test_messages_published_by_many_threads_during_restarts_arrive_once_and_in_order() -> None:
    with RedisServer() as redis_server, ObservedServer(redis_server) as server:
        with WebSocketCrowd([server.url_of()] * 5) as websockets:
            server.wait_for_bus()
            stop = threading.Event()
            delivered: list[str] = []

            def publish() -> None:
                number = 0
                with redis_server.client(socket_timeout=2) as client:
                    while not stop.is_set():
                        number += 1
                        try:
                            if client.publish('broadcast:foo', f'{number}'):
                                delivered.append(f'{number}')
                        except Exception:
                            time.sleep(0.01)
                        time.sleep(0.002)

            thread = threading.Thread(target=publish)
            thread.start()
            for _ in range(3):
                websockets.receive_for(0.3)
                redis_server.restart()
                server.wait_for_bus()
            websockets.receive_for(0.5)
            stop.set()
            thread.join()
            websockets.receive_for(0.5)
            for messages in websockets.messages:
                assert set(delivered) <= set(map(str, messages))
                numbers = [int(str(message)) for message in messages]
                assert numbers == sorted(set(numbers))
