"""Who may subscribe to a channel, and publish on it.

Two settings grant: ``SUBSCRIBE`` and ``PUBLISH`` in ``WS4REDIS_FACILITIES``, and
``WS4REDIS_ALLOWED_CHANNELS``. Where both say something, both must grant. A channel of a user, a
session or a group is always its members' alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.core.exceptions import PermissionDenied

from ws4redis.broker.channels import Audience
from ws4redis.conf import conf
from ws4redis.handshake.identity import identity_of
from ws4redis.hub.identity import ANONYMOUS, Identity
from ws4redis.settings.facilities import FacilityOptions
from ws4redis.settings.hooks import call, load_callback

if TYPE_CHECKING:
    from django.http import HttpRequest

logger = logging.getLogger('ws4redis')

SUBSCRIBE = 'subscribe'
PUBLISH = 'publish'


def option_of(options: FacilityOptions, verb: str) -> Any:
    return options.subscribe if verb == SUBSCRIBE else options.publish


def belongs_to(identity: Identity, audience: Audience, group: str = '') -> bool:
    """Tell whether somebody is one of those for whom an audience is meant."""
    match audience:
        case Audience.USER:
            return identity.user is not None
        case Audience.SESSION:
            return identity.session is not None
        case Audience.GROUP:
            return group in identity.groups
    return True


def is_undecided(facility: str, verb: str) -> bool:
    """Tell whether no setting says who may do something on a facility."""
    return (
        conf.WS4REDIS_ALLOWED_CHANNELS is None
        and option_of(conf.facility_options(facility), verb) is None
    )


def may_at_once(
    identity: Identity, facility: str, audience: Audience, verb: str, *, group: str = ''
) -> bool | None:
    """Answer as :func:`may` does for a client of the client protocol, without blocking.

    None: that takes code of the project, or a token.
    """
    if not belongs_to(identity, audience, group):
        return False
    option = option_of(conf.facility_options(facility), verb)
    if option == 'nobody':
        return False
    if option == 'authenticated' and not identity.is_authenticated:
        return False
    if option == 'staff' and not identity.is_staff:
        return False
    if conf.WS4REDIS_ALLOWED_CHANNELS is not None:
        return None
    if option is None:
        return verb == SUBSCRIBE
    return True if option in ('anyone', 'authenticated', 'staff') else None


def may(
    request: HttpRequest,
    identity: Identity,
    facility: str,
    audience: Audience,
    verb: str,
    *,
    group: str = '',
    has_token: bool = False,
    publishing_needs_grant: bool = True,
) -> bool:
    """Tell whether somebody may subscribe to or publish on a channel. May block.

    ``request`` is what code of the project sees, with the path that a websocket of the facility
    has. ``has_token`` says that a valid token for this channel was shown. With
    ``publishing_needs_grant`` nobody publishes where no setting says anything.
    """
    if not belongs_to(identity, audience, group):
        return False
    option = option_of(conf.facility_options(facility), verb)
    allowed_channels = conf.load_allowed_channels()
    if option is None and allowed_channels is None:
        return verb == SUBSCRIBE or not publishing_needs_grant
    if option is not None and not _grants(
        option, request, identity, facility, audience, verb, has_token=has_token
    ):
        return False
    return allowed_channels is None or _is_listed(allowed_channels, request, f'{verb}-{audience}')


def _grants(
    option: str | Callable[..., Any],
    request: HttpRequest,
    identity: Identity,
    facility: str,
    audience: str,
    verb: str,
    *,
    has_token: bool,
) -> bool:
    match option:
        case 'anyone':
            return True
        case 'authenticated':
            return identity.is_authenticated
        case 'staff':
            return identity.is_staff
        case 'token':
            return has_token
        case 'nobody':
            return False
    name = f'{verb.upper()} of WS4REDIS_FACILITIES'
    callback = load_callback(name, option, 3)
    try:
        return bool(call(name, callback, request, facility, str(audience)))
    except PermissionDenied:
        return False


def _is_listed(allowed_channels: Callable[..., Any], request: HttpRequest, option: str) -> bool:
    try:
        allowed = call(
            'WS4REDIS_ALLOWED_CHANNELS', allowed_channels, request, [option], may_yield=True
        )
        return option in listed(allowed)
    except PermissionDenied:
        return False


def granted_options(request: HttpRequest, facility: str, options: list[str]) -> list[str]:
    """Return those options of a websocket's URL that ``WS4REDIS_FACILITIES`` grants. May block."""
    properties = conf.facility_options(facility)
    if properties.subscribe is None and properties.publish is None:
        return options
    # Else nobody is to be asked: it would block, and name the connection after who it is.
    identity = identity_of(request) if asks_for_more_than_a_name(facility) else ANONYMOUS
    granted = []
    for option in options:
        verb, _, audience = option.partition('-')
        wanted = option_of(properties, verb) if verb in (SUBSCRIBE, PUBLISH) else None
        if wanted is None or _grants(
            wanted, request, identity, facility, audience, verb, has_token=False
        ):
            granted.append(option)
    return granted


def asks_for_more_than_a_name(facility: str) -> bool:
    """Tell whether granting takes a look at who asks, or code of the project."""
    properties = conf.facility_options(facility)
    options = (properties.subscribe, properties.publish)
    return any(option not in (None, 'anyone', 'nobody', 'token') for option in options)


def listed(allowed: Any) -> list[str]:
    """Return what ``WS4REDIS_ALLOWED_CHANNELS`` has returned as a list; nothing but one allows."""
    if allowed is None or isinstance(allowed, str):
        logger.warning(
            'WS4REDIS_ALLOWED_CHANNELS returned %r, which allows nothing: it has to return a list',
            allowed,
        )
        return []
    return list(allowed)
