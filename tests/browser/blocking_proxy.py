"""A proxy as companies have them, which lets no websocket through."""

from __future__ import annotations

import socket

from tests.clients.cuttable import Cuttable

REFUSAL = b'HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'


class BlockingProxy(Cuttable):
    """Forward HTTP to ``port``, but refuse requests for an upgrade while ``blocks`` is true."""

    def __init__(self, port: int) -> None:
        self.blocks = True
        self.refused = 0
        self.heads: list[bytes] = []
        super().__init__(port)

    def forward_requests(self, client: socket.socket, server: socket.socket) -> None:
        # Browsers send the head of a request at once, and a small one is not cut on its way.
        head = client.recv(65536, socket.MSG_PEEK)
        if self.blocks and b'upgrade: websocket' in head.lower():
            self.refused += 1
            client.sendall(REFUSAL)
            client.recv(65536)
            for sock in (client, server):
                sock.shutdown(socket.SHUT_RDWR)
            return
        self.heads.append(head)
        super().forward_requests(client, server)
