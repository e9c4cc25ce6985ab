"""The receivers that let what was granted end; ``apps.py`` connects them.

Whatever goes wrong here is logged, and never fails the logout, the save or the deletion that it
comes from. What has no signal (``QuerySet.update``, a store that drops a session by itself) is
found by the sweep of the processes that hold connections.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial, wraps
from importlib import import_module
from typing import Any

import redis
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.base import SessionBase
from django.db import router, transaction

from ws4redis.broker.control import ControlMessage, Do
from ws4redis.protocol.end_codes import EndCode
from ws4redis.publishing.broker import current_broker
from ws4redis.publishing.control import message_to
from ws4redis.publishing.identity import name_of_group, name_of_user, regrouped_key

logger = logging.getLogger('ws4redis')

# So many users of a group are told of at a time.
USERS_AT_ONCE = 500
# Of a user whose groups have changed, sessions of before know the old ones.
REGROUPED_AT_LEAST_SECONDS = 30 * 24 * 3600


def _robust(receiver: Callable[..., None]) -> Callable[..., None]:
    """Let a receiver never break what sent the signal."""

    @wraps(receiver)
    def robust(*args: Any, **kwargs: Any) -> None:
        try:
            receiver(*args, **kwargs)
        except Exception:
            logger.exception('open connections were not told of a change')

    return robust


class _State:
    # Whether Redis was away when it was told last. Each change is logged once, not each message.
    is_away = False


@_robust
def _tell(messages: Sequence[ControlMessage]) -> None:
    try:
        current_broker().tell(messages)
    except (redis.ConnectionError, redis.TimeoutError) as exc:
        if not _State.is_away:
            _State.is_away = True
            logger.error('open connections were not told of a change, since Redis is away: %s', exc)
    else:
        _State.is_away = False


def _tell_on_commit(messages: Sequence[ControlMessage], using: str | None) -> None:
    if messages:
        transaction.on_commit(lambda: _tell(messages), using=using, robust=True)


# Users


@_robust
def user_logged_out(sender: object, request: Any, user: Any, **kwargs: object) -> None:
    """End the connections of the session that ends."""
    session = getattr(request, 'session', None)
    key = getattr(session, 'session_key', None)
    if isinstance(key, str) and key:
        code, reason = EndCode.LOGGED_OUT, 'logged out'
        _tell([message_to(Do.DISCONNECT, session=key, code=int(code), reason=reason)])


@_robust
def user_saved(
    sender: type[Any],
    instance: Any,
    created: bool,  # noqa: FBT001 - Django's signature
    update_fields: Iterable[str] | None = None,
    using: str | None = None,
    **kwargs: object,
) -> None:
    """Let the user be looked up again: password, name or activity may have changed."""
    if created or (update_fields is not None and not _concerns_rights(sender, update_fields)):
        return
    _tell_on_commit([message_to(Do.CHECK, user=instance)], using)


def _concerns_rights(model: Any, update_fields: Iterable[str]) -> bool:
    # All but what is known to have nothing to do with it: a model's `is_active` may be a property.
    return not set(update_fields) <= {'last_login'}


@_robust
def user_deleted(sender: object, instance: Any, using: str | None = None, **kwargs: object) -> None:
    code, reason = int(EndCode.DELETED), 'user deleted'
    _tell_on_commit([message_to(Do.DISCONNECT, user=instance, code=code, reason=reason)], using)


# Groups


@_robust
def groups_changed(
    sender: object,
    instance: Any,
    action: str,
    reverse: bool,  # noqa: FBT001 - Django's signature
    pk_set: set[Any] | None,
    using: str | None = None,
    **kwargs: object,
) -> None:
    """Let users whose groups have changed subscribe anew."""
    if action in ('post_add', 'post_remove', 'post_clear') and not reverse:
        _regroup([instance], using)
    elif action in ('post_add', 'post_remove'):
        model: Any = get_user_model()
        _regroup(model._default_manager.using(using).filter(pk__in=pk_set or ()).iterator(), using)
    elif action == 'pre_clear' and reverse:
        # Afterwards nobody knows who they were.
        _regroup(_members_of(instance, using), using)


@_robust
def group_ends(sender: object, instance: Any, using: str | None = None, **kwargs: object) -> None:
    """Let the users of a group that is deleted, or gets another name, subscribe anew."""
    if instance.pk is not None:
        _regroup(_members_of(instance, using), using)


@_robust
def group_saved(
    sender: object,
    instance: Any,
    created: bool,  # noqa: FBT001 - Django's signature
    update_fields: Iterable[str] | None = None,
    using: str | None = None,
    **kwargs: object,
) -> None:
    if not created and (update_fields is None or 'name' in update_fields):
        _regroup(_members_of(instance, using), using)


def _members_of(group: Any, using: str | None) -> Iterable[Any]:
    model: Any = get_user_model()
    users = model._default_manager.using(using).filter(groups=group)
    return users.iterator(chunk_size=USERS_AT_ONCE) if name_of_group(group) is not None else ()


def _regroup(users: Iterable[Any], using: str | None) -> None:
    messages = [message_to(Do.CHECK, user=user) for user in users if name_of_user(user) is not None]
    for start in range(0, len(messages), USERS_AT_ONCE):
        part = messages[start : start + USERS_AT_ONCE]
        transaction.on_commit(partial(_tell_regrouped, part), using=using, robust=True)


@_robust
def _tell_regrouped(messages: Sequence[ControlMessage]) -> None:
    names = [message.user for message in messages if message.user is not None]
    # First: who comes back must not be given the old groups.
    seconds = max(2 * settings.SESSION_COOKIE_AGE, REGROUPED_AT_LEAST_SECONDS)
    current_broker().mark([regrouped_key(name) for name in names], seconds)
    _tell(messages)


# Sessions


def tell_of_ended_sessions() -> None:
    """Let the store of sessions tell when it deletes one, or clears those that have expired.

    Django has no signal for that, and stores beside the database's could not send one. So the
    methods of the class of ``SESSION_ENGINE`` are wrapped: they do what they did, then tell.
    """
    engine = import_module(settings.SESSION_ENGINE)
    store: Any = getattr(engine, 'SessionStore', None)
    if not (isinstance(store, type) and issubclass(store, SessionBase)) or _WRAPPED in vars(store):
        return
    setattr(store, _WRAPPED, True)
    store.delete = _telling(store.delete)  # type: ignore[method-assign]
    store.clear_expired = classmethod(  # type: ignore[method-assign, assignment]
        _telling_of_clearance(store.clear_expired.__func__)  # type: ignore[attr-defined]
    )
    # Those of the base class call the ones above in a thread.
    if store.adelete is not SessionBase.adelete:
        store.adelete = _telling_later(store.adelete)  # type: ignore[method-assign]
    aclear_expired = store.aclear_expired.__func__  # type: ignore[attr-defined]
    if aclear_expired is not SessionBase.aclear_expired.__func__:  # type: ignore[attr-defined]
        store.aclear_expired = classmethod(  # type: ignore[method-assign, assignment]
            _telling_of_clearance_later(aclear_expired)
        )


_WRAPPED = 'ws4redis_tells_of_ends'


def _telling(delete: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(delete)
    def telling(self: Any, session_key: str | None = None) -> Any:
        ended = self.session_key if session_key is None else session_key
        result = delete(self, session_key)
        _session_ended(type(self), ended)
        return result

    return telling


def _telling_later(adelete: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(adelete)
    async def telling(self: Any, session_key: str | None = None) -> Any:
        ended = self.session_key if session_key is None else session_key
        result = await adelete(self, session_key)
        await sync_to_async(_session_ended)(type(self), ended)
        return result

    return telling


def _telling_of_clearance(clear_expired: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(clear_expired)
    def telling(cls: Any) -> Any:
        result = clear_expired(cls)
        _sessions_cleared(cls)
        return result

    return telling


def _telling_of_clearance_later(aclear_expired: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(aclear_expired)
    async def telling(cls: Any) -> Any:
        result = await aclear_expired(cls)
        await sync_to_async(_sessions_cleared)(cls)
        return result

    return telling


@_robust
def _session_ended(store: Any, key: object) -> None:
    if isinstance(key, str) and key:
        code, reason = int(EndCode.SESSION_ENDED), 'session ended'
        message = message_to(Do.DISCONNECT, session=key, code=code, reason=reason)
        _tell_when_stored(store, message)


@_robust
def _sessions_cleared(store: Any) -> None:
    _tell_when_stored(store, ControlMessage(Do.CHECK_SESSIONS))


def _tell_when_stored(store: Any, message: ControlMessage) -> None:
    get_model_class = getattr(store, 'get_model_class', None)
    if get_model_class is None:
        _tell([message])
    else:
        _tell_on_commit([message], router.db_for_write(get_model_class()))
