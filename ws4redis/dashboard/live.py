"""The live page: who may, sees what the processes do, looks into channels, sends a test message.

While it is open the processes tell it what goes on over a websocket. Where there is none, since it
is looked at most when those do not work, it asks by plain requests.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_POST, require_safe
from redis.exceptions import RedisError

from ws4redis.broker.census import Question, ask, questions_key, read_answers
from ws4redis.broker.channels import Audience, facility_in
from ws4redis.broker.connections import client_of_key, get_client
from ws4redis.broker.control import Do
from ws4redis.broker.watchers import watch
from ws4redis.conf import conf
from ws4redis.context_processors import websocket_uri
from ws4redis.dashboard.access import may_act, may_view
from ws4redis.dashboard.log import log_action
from ws4redis.publishing.broker import current_broker
from ws4redis.publishing.control import disconnect, message_to
from ws4redis.publishing.history import history
from ws4redis.publishing.identity import users_of
from ws4redis.publishing.presence import Presence
from ws4redis.publishing.publisher import RedisPublisher
from ws4redis.servers.news import FACILITY
from ws4redis.servers.overview import census_of, overview_of
from ws4redis.servers.statistics import get_snapshots

if TYPE_CHECKING:
    from django.http import HttpRequest

logger = logging.getLogger('ws4redis')

LAST_MESSAGES = 20
SHOWN_CHARACTERS = 2000
SHOWN_MEMBERS = 200
MAX_NAME = 500
_NUMBER = re.compile(r'[0-9]{1,20}-[0-9]{1,20}')

View = TypeVar('View', bound=Callable[..., HttpResponse])


class _Refused(Exception):
    """What was asked for cannot be done; the text says why."""


def guarded(allowed: Callable[[HttpRequest], bool]) -> Callable[[View], View]:
    """Let only those in who may; guests are asked to log in, where that helps."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded_view(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if allowed(request):
                return _answer(view, request)
            user = getattr(request, 'user', None)
            if view.__name__ == 'page' and not getattr(user, 'is_authenticated', False):
                return redirect_to_login(request.get_full_path(), _login_url())
            raise PermissionDenied

        return never_cache(guarded_view)  # type: ignore[return-value]

    return decorate


def _answer(view: Callable[..., HttpResponse], request: HttpRequest) -> HttpResponse:
    try:
        return view(request)
    except _Refused as exc:
        return JsonResponse({'error': str(exc)}, status=400)
    except (RedisError, OSError) as exc:
        logger.warning('the live page cannot ask Redis: %s', exc)
        return JsonResponse({'error': 'Redis does not answer.'}, status=503)


def _login_url() -> str | None:
    from django.urls import NoReverseMatch, reverse

    try:
        return reverse('admin:login')
    except NoReverseMatch:
        # LOGIN_URL.
        return None


@require_safe
@guarded(may_view)
def page(request: HttpRequest) -> HttpResponse:
    """Show the page; what is on it comes by `data`."""
    from django.contrib import admin

    context = {
        **admin.site.each_context(request),
        'title': 'Websockets',
        'may_act': may_act(request),
        'audiences': list(Audience),
        'interval': conf.WS4REDIS_SNAPSHOT_INTERVAL,
        'websocket_uri': f'{websocket_uri(request)}{FACILITY}?subscribe-user',
        'heartbeat': conf.WS4REDIS_HEARTBEAT,
    }
    return render(request, 'ws4redis/live.html', context)


@require_safe
@guarded(may_view)
def data(request: HttpRequest) -> HttpResponse:
    """Return what all processes do now, and let the user be told of what they do next."""
    for user in users_of(request):
        watch(get_client(), user)
    return JsonResponse(overview_of(get_snapshots()))


@require_safe
@guarded(may_view)
def channel(request: HttpRequest) -> HttpResponse:
    """Return the last messages of a channel, and who is in it."""
    facility, audience = _channel_in(request.GET)
    options = conf.facility_options(facility)
    messages: list[dict[str, Any]] = []
    members: list[str] | None = None
    if options.has_history:
        found = history(facility, limit=LAST_MESSAGES, reverse=True, **audience)
        messages = [
            {'text': _shown(m.payload), 'offset': m.position.offset} for m in found.messages
        ]
    else:
        publisher = RedisPublisher(facility=facility, **audience)
        (kept,) = publisher._broker.fetch(list(publisher._publishers))
        messages = [] if kept is None else [{'text': _shown(kept), 'offset': None}]
    if options.presence:
        members = [member.id for member in Presence(facility, **audience).members()]
    return JsonResponse(
        {
            'has_history': options.has_history,
            'messages': messages,
            'members': None if members is None else members[:SHOWN_MEMBERS],
            'count': None if members is None else len(members),
        }
    )


@require_safe
@guarded(may_view)
def who(request: HttpRequest) -> HttpResponse:
    """Ask who is connected: one user, or a page of users in the order of their names."""
    user, after = request.GET.get('user', '').strip(), request.GET.get('after', '')
    if max(len(user), len(after)) > MAX_NAME:
        raise _Refused(f'Names have {MAX_NAME} characters at most.')
    client = client_of_key(questions_key(conf.key_prefix))
    number = ask(client, conf.key_prefix, Question(user=user, after=after))
    return JsonResponse({'question': number, 'processes': len(get_snapshots())})


@require_safe
@guarded(may_view)
def answers(request: HttpRequest) -> HttpResponse:
    """Return what processes have answered to a question until now."""
    number = request.GET.get('question', '')
    if not _NUMBER.fullmatch(number):
        raise _Refused('That is no question.')
    found = read_answers(get_client(), conf.key_prefix, number)
    return JsonResponse({**census_of(found), 'answers': len(found)})


@require_POST
@csrf_protect
@guarded(may_act)
def end(request: HttpRequest) -> HttpResponse:
    """End all connections of a user, or let them leave a channel; noted in admin's log."""
    user = request.POST.get('user', '').strip()
    if not user or len(user) > MAX_NAME:
        raise _Refused('Name a user.')
    channel_of = request.POST.get('channel', '')
    if not channel_of:
        disconnect(user=user)
        log_action(request, user, 'Ended all connections.')
        return JsonResponse({'done': f'The connections of {user} end.'})
    facility = facility_in(channel_of, prefix=conf.key_prefix)
    if facility is None or len(channel_of) > 3 * MAX_NAME:
        raise _Refused('That is no channel.')
    message = message_to(Do.UNSUBSCRIBE, user=user, channel=channel_of)
    current_broker().tell([message])
    log_action(request, user, f'Unsubscribed from {channel_of[:200]}.')
    return JsonResponse({'done': f'{user} leaves {channel_of}.'})


@require_POST
@csrf_protect
@guarded(may_act)
def publish(request: HttpRequest) -> HttpResponse:
    """Send a test message to a channel; it is not kept, and noted in admin's log."""
    facility, audience = _channel_in(request.POST)
    message = request.POST.get('message', '')
    if not message:
        raise _Refused('Write a message.')
    publisher = RedisPublisher(facility=facility, **audience)
    publisher.publish_message(message, expire=0, on_commit=False)
    (name,) = publisher._publishers
    log_action(request, name, f'Sent a test message: {message[:200]}')
    return JsonResponse({'sent': name})


def _channel_in(values: Any) -> tuple[str, dict[str, Any]]:
    """Return the facility and the audience that a form names."""
    facility = values.get('facility', '').strip()
    kind, name = values.get('audience', Audience.BROADCAST), values.get('name', '').strip()
    if not facility:
        raise _Refused('Name a facility.')
    if len(facility) > MAX_NAME or len(name) > MAX_NAME:
        raise _Refused(f'Names have {MAX_NAME} characters at most.')
    if kind == Audience.BROADCAST:
        return facility, {'broadcast': True}
    if kind not in set(Audience):
        raise _Refused(f'An audience is one of {", ".join(Audience)}.')
    if not name:
        raise _Refused(f'Name the {kind}.')
    return facility, {f'{kind}s': [name]}


def _shown(payload: bytes) -> str:
    text = payload[: 4 * SHOWN_CHARACTERS].decode(errors='replace')
    return text if len(text) <= SHOWN_CHARACTERS else f'{text[:SHOWN_CHARACTERS]}…'
