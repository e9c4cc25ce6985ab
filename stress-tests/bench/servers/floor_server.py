"""The floor: what a fan-out costs at least in Python, with nothing around it.

A bare loop: epoll, one `send` per websocket and message, Redis read with hiredis. It answers the
opening handshake and else never looks at what a client sends. The path of a websocket's URL after
the last slash is the Redis channel.

Usage: python floor_server.py PORT REDIS_PORT
"""

import base64
import hashlib
import select
import socket
import sys
from collections.abc import Callable

import hiredis

GUID = b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11'

Send = Callable[[bytes], int]


class Floor:
    """Serve websockets on one port, messages from one Redis."""

    def __init__(self, port: int, redis_port: int) -> None:
        self.epoll = select.epoll()
        self.listener = socket.create_server(('127.0.0.1', port), backlog=1024)
        self.listener.settimeout(0)
        self.redis = socket.create_connection(('127.0.0.1', redis_port))
        self.reader = hiredis.Reader()
        self.epoll.register(self.listener, select.EPOLLIN)
        self.epoll.register(self.redis, select.EPOLLIN)
        self.sockets: dict[int, socket.socket] = {}
        self.audiences: dict[bytes, list[tuple[int, Send]]] = {}
        self.unsent: dict[int, bytearray] = {}

    def run(self) -> None:
        """Serve until the process is ended."""
        listener, redis = self.listener.fileno(), self.redis.fileno()
        while True:
            for descriptor, events in self.epoll.poll():
                if descriptor == redis:
                    self.receive_from_redis()
                elif descriptor == listener:
                    self.accept()
                else:
                    self.handle(descriptor, events)

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
        head = b'\x81%c' % size if size < 126 else b'\x81\x7e' + size.to_bytes(2)
        frame = head + message
        unsent = self.unsent
        for descriptor, send in self.audiences[channel]:
            if unsent and descriptor in unsent:
                unsent[descriptor] += frame
                continue
            try:
                sent = send(frame)
            except BlockingIOError:
                sent = 0
            except OSError:
                continue
            if sent != size + len(head):
                unsent[descriptor] = bytearray(frame[sent:])
                self.epoll.modify(descriptor, select.EPOLLIN | select.EPOLLOUT)

    def accept(self) -> None:
        """Accept what waits; the handshake comes with the first read."""
        try:
            while True:
                sock, _ = self.listener.accept()
                sock.settimeout(0)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.sockets[sock.fileno()] = sock
                self.epoll.register(sock, select.EPOLLIN)
        except BlockingIOError:
            pass

    def handle(self, descriptor: int, events: int) -> None:
        """Answer a handshake, write what was left over, or notice that the client is gone."""
        sock = self.sockets[descriptor]
        try:
            if events & select.EPOLLOUT:
                rest = self.unsent[descriptor]
                del rest[: sock.send(rest)]
                if not rest:
                    del self.unsent[descriptor]
                    self.epoll.modify(descriptor, select.EPOLLIN)
                return
            data = sock.recv(65536)
            if data.startswith(b'GET '):
                self.answer(descriptor, data)
        except BlockingIOError:
            return
        except OSError:
            data = b''
        if not data:
            self.forget(descriptor)

    def answer(self, descriptor: int, request: bytes) -> None:
        """Answer the opening handshake; a request of a local client comes in one piece."""
        target = request.split(b' ', 2)[1].partition(b'?')[0]
        key = request.partition(b'Sec-WebSocket-Key: ')[2].partition(b'\r\n')[0]
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        sock = self.sockets[descriptor]
        channel = b'broadcast:' + target.rpartition(b'/')[2]
        if channel not in self.audiences:
            self.audiences[channel] = []
            self.redis.send(b'*2\r\n$9\r\nSUBSCRIBE\r\n$%d\r\n%b\r\n' % (len(channel), channel))
        self.audiences[channel].append((descriptor, sock.send))
        sock.send(
            b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
            b'Sec-WebSocket-Accept: ' + accept + b'\r\n\r\n'
        )

    def forget(self, descriptor: int) -> None:
        """Drop a websocket whose client is gone."""
        self.unsent.pop(descriptor, None)
        for audience in self.audiences.values():
            audience[:] = [member for member in audience if member[0] != descriptor]
        self.sockets.pop(descriptor).close()


if __name__ == '__main__':
    Floor(int(sys.argv[1]), int(sys.argv[2])).run()
