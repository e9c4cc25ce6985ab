"""The Channels contenders: one consumer that does what ws4redis does with a facility.

`/ws/<facility>` needs no session; `/auth/<facility>` goes through `AuthMiddlewareStack` and joins
the user's own group. Two further consumers send back what they receive: one of blocking code, which
Channels runs in threads, and an asynchronous one.
"""

import os
from typing import Any

os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'bench.servers.channels_settings')

import django

django.setup()

from channels.auth import AuthMiddlewareStack  # type: ignore[import-untyped]
from channels.generic.websocket import (  # type: ignore[import-untyped]
    AsyncWebsocketConsumer,
    WebsocketConsumer,
)
from channels.routing import ProtocolTypeRouter, URLRouter  # type: ignore[import-untyped]
from django.urls import re_path


class FacilityConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Subscribe to, and publish on, the group of a facility."""

    async def connect(self) -> None:
        options = self.scope['query_string'].decode().split('&')
        self.group = self.scope['url_route']['kwargs']['facility']
        self.publishes = 'publish-broadcast' in options
        self.subscribes = 'subscribe-broadcast' in options
        if 'subscribe-user' in options:
            self.group = f'user-{self.scope["user"].get_username()}'
            self.subscribes = True
        if self.subscribes:
            await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        if self.subscribes:
            await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.publishes:
            event = {'type': 'facility.message', 'text': text_data}
            await self.channel_layer.group_send(self.group, event)

    async def facility_message(self, event: dict[str, Any]) -> None:
        await self.send(text_data=event['text'])


class BlockingEcho(WebsocketConsumer):  # type: ignore[misc]
    """Send each message back."""

    def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        self.send(text_data=text_data, bytes_data=bytes_data)


class CooperativeEcho(AsyncWebsocketConsumer):  # type: ignore[misc]
    """Send each message back."""

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.send(text_data=text_data, bytes_data=bytes_data)


_consumer = FacilityConsumer.as_asgi()

application = ProtocolTypeRouter(
    {
        'websocket': URLRouter(
            [
                re_path(r'^ws/(?P<facility>[\w.-]+)$', _consumer),
                re_path(
                    r'^auth/(?P<facility>[\w.-]+)$',
                    AuthMiddlewareStack(_consumer),
                ),
                re_path(r'^handler/blocking$', BlockingEcho.as_asgi()),
                re_path(r'^handler/cooperative$', CooperativeEcho.as_asgi()),
            ]
        )
    }
)
