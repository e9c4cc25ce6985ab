"""Three chats, which differ in their audience alone.

A page is rendered with the message that Redis keeps for its channel, if there is one; what comes
later arrives by the websocket. A message is posted to the page's own URL, published by
``RedisPublisher``, and comes back to its sender like to everyone else: by the websocket.
"""

from __future__ import annotations

import logging
from typing import Any

import redis
from django.conf import settings
from django.contrib.auth.mixins import LoginRequiredMixin
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.views.generic import FormView

from chatserver.chat_messages import MAX_NAME_LENGTH, MAX_TEXT_LENGTH, ChatMessage
from chatserver.forms import BroadcastForm, GroupForm, MessageForm, UserForm
from chatserver.terminal import publish_commands
from ws4redis.publisher import RedisPublisher
from ws4redis.redis_store import SELF

logger = logging.getLogger(__name__)

# The part of the websocket's URL that names our communication channel.
FACILITY = 'foobar'

REDIS_IS_AWAY = 'Redis cannot be reached. Your message was not sent.'


def wants_json(request: HttpRequest) -> bool:
    """Tell whether our script asks, rather than the browser by itself."""
    return request.accepts('application/json') and not request.accepts('text/html')


class Chat(FormView):
    """Show a chat, and publish what is posted to it.

    Subclasses say who is listening: ``audience`` to ws4redis, the rest to people.
    """

    form_class = MessageForm
    template_name = 'chatserver/chat.html'
    audience: str
    websocket_options: str
    title: str
    subtitle: str
    recipient_field = ''

    def audience_of_visitor(self) -> dict[str, Any]:
        """Return, as ``RedisPublisher`` wants it, the audience to which the visitor belongs."""
        raise NotImplementedError

    def audience_of_message(self, form: MessageForm) -> dict[str, Any]:
        """Return, as ``RedisPublisher`` wants it, who gets the message of a valid form."""
        raise NotImplementedError

    def publisher(self, **audience: Any) -> RedisPublisher:
        return RedisPublisher(facility=FACILITY, request=self.request, **audience)

    def publish_commands(self) -> list[str]:
        """Return what to type in a terminal to reach this page."""
        channels = sorted(self.publisher(**self.audience_of_visitor())._publishers)
        return publish_commands(channels, show_location=settings.DEBUG)

    def kept_message(self) -> ChatMessage | None:
        """Return the last message, as long as Redis keeps it."""
        try:
            payload = RedisPublisher().fetch_message(self.request, FACILITY, audience=self.audience)
        except redis.RedisError:
            logger.warning('no kept message, since Redis cannot be reached', exc_info=True)
            return None
        return None if payload is None else ChatMessage.from_payload(payload)

    def get_form_kwargs(self) -> dict[str, Any]:
        return super().get_form_kwargs() | {'request': self.request}

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(
            facility=FACILITY,
            max_text_length=MAX_TEXT_LENGTH,
            max_name_length=MAX_NAME_LENGTH,
            kept_message=self.kept_message(),
            **kwargs,
        )

    def form_valid(self, form: MessageForm) -> HttpResponse:
        message = ChatMessage(
            text=form.cleaned_data['message'], sender=form.sender, recipient=form.recipient
        )
        try:
            self.publisher(**self.audience_of_message(form)).publish_message(message.to_json())
        except redis.RedisError:
            logger.exception('a message was not published')
            return self.refuse(form, REDIS_IS_AWAY, status=503)
        if wants_json(self.request):
            return JsonResponse({'id': message.id})
        return HttpResponseRedirect(self.request.path)

    def form_invalid(self, form: MessageForm) -> HttpResponse:
        return self.refuse(form, form.error_text(), status=400)

    def refuse(self, form: MessageForm, error: str, *, status: int) -> HttpResponse:
        """Say why the message was not sent, and keep it in the form."""
        if wants_json(self.request):
            return JsonResponse({'error': error}, status=status)
        return self.render_to_response(self.get_context_data(form=form, error=error), status=status)


class BroadcastChat(Chat):
    """From everyone to everyone.

    Here the browser may publish through its websocket as well: no view sees those messages.
    """

    form_class = BroadcastForm
    audience = 'broadcast'
    websocket_options = 'subscribe-broadcast&publish-broadcast&echo'
    title = 'Everyone'
    subtitle = 'Whoever has this page open reads along.'

    def audience_of_visitor(self) -> dict[str, Any]:
        return {'broadcast': True}

    def audience_of_message(self, form: MessageForm) -> dict[str, Any]:
        return {'broadcast': True}


class PrivateChat(LoginRequiredMixin, Chat):
    """A chat for users who are logged in."""

    def handle_no_permission(self) -> HttpResponse:
        if wants_json(self.request):
            return JsonResponse({'error': 'You are logged out. Please log in.'}, status=403)
        return super().handle_no_permission()


class UserChat(PrivateChat):
    """From one user to another. The sender reads along in all her windows."""

    form_class = UserForm
    audience = 'user'
    websocket_options = 'subscribe-user'
    title = 'One to one'
    subtitle = 'Only the two of you see these messages.'
    recipient_field = 'user'

    def audience_of_visitor(self) -> dict[str, Any]:
        return {'users': [SELF]}

    def audience_of_message(self, form: MessageForm) -> dict[str, Any]:
        return {'users': [form.recipient, SELF]}


class GroupChat(PrivateChat):
    """From a user to all members of a group."""

    form_class = GroupForm
    audience = 'group'
    websocket_options = 'subscribe-group'
    title = 'Groups'
    subtitle = 'All members of the group see these messages.'
    recipient_field = 'group'

    def audience_of_visitor(self) -> dict[str, Any]:
        return {'groups': [SELF]}

    def audience_of_message(self, form: MessageForm) -> dict[str, Any]:
        return {'groups': [form.recipient]}
