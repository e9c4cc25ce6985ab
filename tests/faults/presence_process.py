"""A websocket process for the tests of presence: ``python -m tests.faults.presence_process PORT``.

Hub, presence and connections to Redis are the real ones. Only the handshake is left out: a client
sends one line, its user and its channel, and is told from then on who is there. The environment
variable ``PRESENCE_TEMPO`` makes all times of presence shorter.
"""

from __future__ import annotations

import os
import socket
import sys
from functools import partial

import django

from ws4redis.protocol.frames import Opcode


def hurry(tempo: float) -> None:
    """Divide the times of presence."""
    from ws4redis.broker import presence as broker
    from ws4redis.hub import presence as hub

    for module, names in (
        (broker, ('LEASE_SECONDS',)),
        (
            hub,
            (
                'RENEWAL_SECONDS',
                'GRACE_SECONDS',
                'BURIAL_AGE_SECONDS',
                'VERIFICATION_SECONDS',
                'REFUSED_SECONDS',
            ),
        ),
    ):
        for name in names:
            setattr(module, name, getattr(module, name) / tempo)


def serve(port: int) -> None:
    from ws4redis.broker.presence import ChangeKind, Member
    from ws4redis.hub.channel import Joined, Outcome
    from ws4redis.hub.identity import Identity
    from ws4redis.hub.websocket import WebSocket
    from ws4redis.protocol.connection import ServerConnection
    from ws4redis.protocol.wire import PLAIN
    from ws4redis.servers.process import get_hub

    hub = get_hub()

    class Watching:
        """Tell one websocket who is in its channel."""

        def __init__(self, user: str, channel: str) -> None:
            self.channel = channel
            self.websocket = WebSocket(hub, ServerConnection(hub.options.limits), PLAIN, self)
            self.websocket.identity = Identity(user=user)

        def attach(self, sock: socket.socket) -> None:
            self.websocket.attach(sock)
            hub.join(self.websocket, self.channel, self.joined)

        def joined(self, joined: Joined) -> None:
            # Once this has returned, it is in the audience.
            if joined.outcome is not Outcome.LEFT:
                hub.loop.call_soon(self.listen)

        def listen(self) -> None:
            if self.websocket.channels:
                hub.mirrors.listen(self.channel.encode(), self.told, self.ready)

        def ready(self, members: list[Member]) -> None:
            self.send('=', *(str(member.user) for member in members))

        def told(self, channel: bytes, kind: ChangeKind, member: Member) -> None:
            self.send(kind, str(member.user))

        def send(self, *words: str) -> None:
            self.websocket.send_message(' '.join(words).encode())

        def receive_message(self, websocket: WebSocket, opcode: Opcode, payload: bytes) -> None:
            pass

        def websocket_drained(self, websocket: WebSocket) -> None:
            pass

        def websocket_closed(self, websocket: WebSocket, code: int, reason: str) -> None:
            hub.mirrors.stop_listening(self.channel.encode(), self.told)

    with socket.create_server(('127.0.0.1', port), backlog=500) as listener:
        print('ready', flush=True)
        while True:
            sock, _ = listener.accept()
            try:
                sock.settimeout(5)
                line = b''
                while not line.endswith(b'\n'):
                    received = sock.recv(200)
                    if not received:
                        raise ConnectionResetError
                    line += received
            except OSError:
                sock.close()
                continue
            user, channel = line.decode().split()
            sock.settimeout(0)
            hub.loop.call_soon(partial(Watching(user, channel).attach, sock))


if __name__ == '__main__':
    django.setup()
    hurry(float(os.environ.get('PRESENCE_TEMPO', '1')))
    serve(int(sys.argv[1]))
