"""The rooms of the chat: a facility with a history, and one with presence, for each."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import redis
from chatserver.chat_messages import ChatMessage

from ws4redis.history import history
from ws4redis.presence import Presence

logger = logging.getLogger(__name__)

ROOMS = {
    'lobby': 'What everybody should know.',
    'releases': 'What goes out today.',
    'kitchen': 'Coffee, lunch and lost cups.',
}
MESSAGES_SHOWN = 50


@dataclass(frozen=True)
class Past:
    """What was said in a room, and the position from which the page goes on."""

    messages: list[ChatMessage] = field(default_factory=list)
    position: str = ''
    is_known: bool = True


def past_of(room: str) -> Past:
    """Return the last messages of a room; none while Redis is away."""
    try:
        past = history(f'room/{room}', limit=MESSAGES_SHOWN, reverse=True)
    except redis.RedisError:
        logger.warning('the past of a room is not shown', exc_info=True)
        return Past(is_known=False)
    messages = [ChatMessage.from_payload(message.payload) for message in reversed(past.messages)]
    return Past(messages, past.position)


def who_is_in(room: str) -> list[str]:
    """Return the names of those who have the page of a room open; none while Redis is away."""
    try:
        members = Presence(f'here/{room}').members()
    except redis.RedisError:
        logger.warning('who is in a room is not shown', exc_info=True)
        return []
    return sorted(
        str((member.info or {}).get('name') or member.user or 'Guest') for member in members
    )
