"""The policy of a handshake: who may open which websocket, and what it is connected to."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import aget_user, get_user
from django.core.exceptions import (
    BadRequest,
    DisallowedHost,
    PermissionDenied,
    SuspiciousOperation,
)
from django.utils.functional import SimpleLazyObject

from ws4redis.broker.channels import Audience, facility_of, options_of
from ws4redis.broker.connections import get_client
from ws4redis.conf import conf
from ws4redis.exceptions import HandshakeError
from ws4redis.handshake.grants import asks_for_more_than_a_name, granted_options, listed
from ws4redis.handshake.identity import identity_of, refresh_groups
from ws4redis.handshake.origins import is_origin_allowed
from ws4redis.handshake.sessions import read_for, session_of
from ws4redis.handshake.subscriber import RedisSubscriber, release
from ws4redis.handshake.users import vouched_user
from ws4redis.hub.identity import ANONYMOUS, Identity
from ws4redis.publishing.identity import sessions_of, users_of
from ws4redis.settings.hooks import call

if TYPE_CHECKING:
    from django.http import HttpRequest

logger = logging.getLogger('ws4redis')

# Why a host or an origin is refused although the client sent the right one.
_PROXY_ADVICE = (
    'let the proxy pass the Host on (NGINX: "proxy_set_header Host $http_host;", '
    'Apache: "ProxyPreserveHost On")'
)

_PERSONAL = tuple(f'-{audience}' for audience in Audience if audience is not Audience.BROADCAST)


@dataclass(slots=True)
class Admission:
    """What a handshake is granted."""

    subscriber: RedisSubscriber
    echo: bool
    heartbeats: bool
    user: str | None
    identity: Identity = ANONYMOUS
    # Whether other handshakes get it, too.
    is_shared: bool = False


def _user_of(request: HttpRequest) -> Any:
    # A project without users has no anonymous one either, whose module would not import.
    if not apps.is_installed('django.contrib.auth'):
        return None
    read = read_for(request)
    return (read and vouched_user(read.user, request.session)) or get_user(request)


def process_request(request: HttpRequest) -> None:
    """Set ``request.session`` and ``request.user`` from the session cookie, both lazily.

    The default of ``WS4REDIS_PROCESS_REQUEST``: neither the session store nor the database is
    asked before something looks at them. ``await request.auser()`` is for asynchronous callbacks.
    """
    session_key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    # Even making a store costs something: Django looks its cache or its model up.
    lazy: Any = request
    lazy.session = SimpleLazyObject(lambda: _noting(request, session_of(request, session_key)))
    lazy.user = SimpleLazyObject(lambda: _user_of(request))
    lazy.auser = partial(aget_user, request)
    lazy.ws4redis_unasked = (lazy.session, lazy.user)


def _noting(request: Any, session: Any) -> Any:
    """Note that somebody asks about a session, and with it about the user."""
    request.ws4redis_unasked = None
    return session


def identity_asked_for(request: HttpRequest, *, with_groups: bool = False) -> Identity:
    """Return in whose name a request was admitted; anonymous where nobody asked. May block."""
    unasked = getattr(request, 'ws4redis_unasked', None)
    lazy: Any = request
    if unasked is not None and unasked[0] is lazy.session and unasked[1] is lazy.user:
        return ANONYMOUS
    return identity_of(request, with_groups=with_groups)


def admit(request: HttpRequest) -> Admission:
    """Apply the policy of the settings to a handshake. May block.

    Raise ``HandshakeError``: 400 for a bad host or request, 403 when a callback raises
    ``PermissionDenied`` or the origin is foreign, 500 (and log it) when one raises anything else.
    """
    with refusing_errors(request):
        return _admit(request)


def authorise(request: HttpRequest) -> None:
    """Apply the part of the policy that has nothing to do with channels. May block.

    That is host, origin and ``WS4REDIS_PROCESS_REQUEST``; raise ``HandshakeError`` as
    :func:`admit` does.
    """
    with refusing_errors(request):
        _authorise(request)


@contextmanager
def refusing_errors(request: HttpRequest) -> Iterator[None]:
    """Turn what the project's code raises into the ``HandshakeError`` that answers it."""
    try:
        yield
    except HandshakeError:
        raise
    except PermissionDenied:
        raise HandshakeError(403, 'Permission denied.') from None
    except DisallowedHost as exc:
        logger.warning(
            'handshake refused: %s If the client asked for another host, %s', exc, _PROXY_ADVICE
        )
        raise HandshakeError(400, 'The Host is not in ALLOWED_HOSTS.') from None
    except (SuspiciousOperation, BadRequest, UnicodeError) as exc:
        logger.warning('handshake refused: %s', exc)
        raise HandshakeError(400, 'Bad request.') from None
    except (Exception, SystemExit):
        logger.exception('a handshake failed: %s', request.path)
        raise HandshakeError(500, 'Internal server error.') from None


def verify_origin(request: HttpRequest) -> None:
    """Check host and origin alone, which does not block; raise ``HandshakeError``."""
    with refusing_errors(request):
        refuse_foreign_origin(request)


def refuse_foreign_origin(request: HttpRequest) -> None:
    """Raise ``HandshakeError`` 403 for a foreign origin, Django's ``DisallowedHost`` for a host."""
    if not is_origin_allowed(request):
        origin = request.META.get('HTTP_ORIGIN')
        if origin is None:
            logger.warning(
                'handshake refused: it names no origin, and its Sec-Fetch-Site is %r: a page of '
                'another site makes it. If that may connect, let it send its origin (fetch with '
                'the mode "cors"), and name that in WS4REDIS_ALLOWED_ORIGINS',
                request.META.get('HTTP_SEC_FETCH_SITE'),
            )
        else:
            logger.warning(
                'handshake refused: the origin %r is not that of the host %r. If that is not the '
                'host that the client asked for, %s; else name the origin in '
                'WS4REDIS_ALLOWED_ORIGINS',
                origin,
                f'{request.scheme}://{request.get_host()}',
                _PROXY_ADVICE,
            )
        raise HandshakeError(403, 'Websockets are not allowed from this origin.')


def _authorise(request: HttpRequest) -> None:
    refuse_foreign_origin(request)
    authenticate(request)


def authenticate(request: HttpRequest) -> None:
    """Let ``WS4REDIS_PROCESS_REQUEST``, or its default, say who a request comes from."""
    call('WS4REDIS_PROCESS_REQUEST', conf.load_process_request() or process_request, request)


def _admit(request: HttpRequest) -> Admission:
    _authorise(request)
    subscriber_class = conf.load_subscriber()
    options = requested_options(request)
    channels = [option for option in options if option in _known_options(subscriber_class)]
    _verify_session(request, channels)
    allowed_channels = conf.load_allowed_channels()
    if allowed_channels is not None:
        channels = listed(
            call('WS4REDIS_ALLOWED_CHANNELS', allowed_channels, request, channels, may_yield=True)
        )
        # It may have added channels that were not asked for.
        _verify_session(request, channels)
    channels = granted_options(request, _facility_of(request), channels)
    with_groups = allowed_channels is not None
    if any(channel.endswith('-group') for channel in channels):
        refresh_groups(request)
        with_groups = True
    subscriber = subscriber_class(get_client())
    try:
        call('set_pubsub_channels()', subscriber.set_pubsub_channels, request, channels)
        if _shows_who_is_there(request, channels):
            identity = identity_of(request, with_groups=with_groups)
        else:
            identity = identity_asked_for(request, with_groups=with_groups)
    except BaseException:
        release(subscriber)
        raise
    return Admission(
        subscriber,
        echo='echo' in options,
        heartbeats='no-heartbeat' not in options,
        user=user_to_count(request),
        identity=identity,
    )


def _shows_who_is_there(request: HttpRequest, options: Iterable[str]) -> bool:
    """Tell whether others see who subscribes, so that it has to be found out."""
    return conf.facility_options(_facility_of(request)).presence and any(
        option.startswith('subscribe-') for option in options
    )


def _facility_of(request: HttpRequest) -> str:
    return facility_of(request.path_info, conf.WEBSOCKET_URL)


def requested_options(request: HttpRequest) -> list[str]:
    """Return the options of a websocket's URL, in lower case and dashed, known or not."""
    return options_of(request.META.get('QUERY_STRING', ''))


def _known_options(subscriber_class: type[Any]) -> set[str]:
    return {*subscriber_class.subscription_channels, *subscriber_class.publish_channels}


def _verify_session(request: HttpRequest, channels: Iterable[str]) -> None:
    # Afterwards a session that does not exist has no key, for code of the project either.
    if any(channel.endswith(_PERSONAL) for channel in channels):
        sessions_of(request)


def user_to_count(request: HttpRequest) -> str | None:
    """Return the user whose websockets are to be counted, if any. May block."""
    if conf.WS4REDIS_MAX_CONNECTIONS_PER_USER is None:
        return None
    return next(iter(users_of(request)), None)


def may_block(request: HttpRequest) -> bool:
    """Tell whether :func:`admit` may ask a session store, a database or code of the project.

    Only an anonymous kind of handshake cannot: broadcasts, with nothing replaced in the settings.
    """
    return (
        conf.WS4REDIS_PROCESS_REQUEST is not None
        or conf.WS4REDIS_ALLOWED_CHANNELS is not None
        or conf.WS4REDIS_MAX_CONNECTIONS_PER_USER is not None
        or conf.load_subscriber() is not RedisSubscriber
        or any(option.endswith(_PERSONAL) for option in requested_options(request))
        or _shows_who_is_there(request, requested_options(request))
        or asks_for_more_than_a_name(_facility_of(request))
    )


def asks_only_who(request: HttpRequest) -> bool:
    """Tell whether :func:`admit` asks for no more than the session and its user.

    That is, neither code of the project nor groups.
    """
    return (
        conf.WS4REDIS_PROCESS_REQUEST is None
        and conf.WS4REDIS_ALLOWED_CHANNELS is None
        and conf.load_subscriber() is RedisSubscriber
        and not any(option.endswith('-group') for option in requested_options(request))
        and not asks_for_more_than_a_name(_facility_of(request))
    )
