"""The floor in Python, for where there is no C compiler: the same as floor.c, with hiredis.

Usage: python floor_server.py PORT REDIS_PORT ACCEPT
"""

import contextlib
import select
import socket
import sys
from collections import defaultdict
from collections.abc import Callable

import hiredis

Member = tuple[int, Callable[[bytes], int]]

ANSWER = (
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
    'Sec-WebSocket-Accept: {}\r\n\r\n'
)


class Floor:
    """Serve websockets on one port, messages from one Redis."""

    def __init__(self, port: int, redis_port: int, accept: str) -> None:
        self.answer = ANSWER.format(accept).encode()
        self.epoll = select.epoll()
        self.listener = socket.create_server(('127.0.0.1', port), backlog=1024)
        self.listener.settimeout(0)
        self.redis = socket.create_connection(('127.0.0.1', redis_port))
        self.reader = hiredis.Reader()
        self.sockets: dict[int, socket.socket] = {}
        self.audiences: defaultdict[bytes, list[Member]] = defaultdict(list)
        self.unsent: defaultdict[int, bytes] = defaultdict(bytes)

    def run(self) -> None:
        """Serve until the process is ended."""
        others = {self.listener.fileno(): self.accept, self.redis.fileno(): self.receive_from_redis}
        for descriptor in others:
            self.epoll.register(descriptor, select.EPOLLIN)
        while True:
            for descriptor, events in self.epoll.poll():
                if descriptor in others:
                    others[descriptor]()
                else:
                    self.handle(self.sockets[descriptor], events)

    def receive_from_redis(self) -> None:
        """Send each message on at once."""
        data = self.redis.recv(1024 * 1024)
        if not data:
            sys.exit('Redis is gone')
        self.reader.feed(data)
        while (reply := self.reader.gets()) is not False:
            if reply[0] == b'message':
                self.fan_out(reply[1], reply[2])

    def fan_out(self, channel: bytes, message: bytes) -> None:
        """Make one frame and send it to all, one after the other."""
        size = len(message)
        frame = (b'\x81%c' % size if size < 126 else b'\x81\x7e' + size.to_bytes(2)) + message
        for descriptor, send in self.audiences[channel]:
            sent = 0
            if descriptor not in self.unsent:
                try:
                    sent = send(frame)
                except BlockingIOError:
                    pass
                except OSError:
                    continue
            if sent != len(frame):
                self.unsent[descriptor] += frame[sent:]
                self.epoll.modify(descriptor, select.EPOLLIN | select.EPOLLOUT)

    def accept(self) -> None:
        """Accept what waits; the handshake comes with the first read."""
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self.listener.accept()
                sock.settimeout(0)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.sockets[sock.fileno()] = sock
                self.epoll.register(sock, select.EPOLLIN)

    def handle(self, sock: socket.socket, events: int) -> None:
        """Answer a handshake, write what was left over, or notice that the client is gone."""
        descriptor = sock.fileno()
        try:
            if events & select.EPOLLOUT:
                self.unsent[descriptor] = self.unsent[descriptor][
                    sock.send(self.unsent[descriptor]) :
                ]
                if not self.unsent[descriptor]:
                    del self.unsent[descriptor]
                    self.epoll.modify(descriptor, select.EPOLLIN)
            elif not (data := sock.recv(65536)):
                self.forget(sock)
            elif data.startswith(b'GET '):
                self.subscribe(sock, data.split(b' ', 2)[1].partition(b'?')[0])
        except BlockingIOError:
            pass
        except OSError:
            self.forget(sock)

    def subscribe(self, sock: socket.socket, path: bytes) -> None:
        """Answer the opening handshake; a request of a local client comes in one piece."""
        channel = b'broadcast:' + path.rpartition(b'/')[2]
        if channel not in self.audiences:
            self.redis.send(b'*2\r\n$9\r\nSUBSCRIBE\r\n$%d\r\n%b\r\n' % (len(channel), channel))
        self.audiences[channel].append((sock.fileno(), sock.send))
        sock.send(self.answer)

    def forget(self, sock: socket.socket) -> None:
        """Drop a websocket whose client is gone."""
        self.unsent.pop(sock.fileno(), None)
        for audience in self.audiences.values():
            audience[:] = [member for member in audience if member[0] != sock.fileno()]
        self.sockets.pop(sock.fileno()).close()


if __name__ == '__main__':
    Floor(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]).run()
