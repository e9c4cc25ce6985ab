"""Views of the pages that show what the package can do: each publishes, or hands out a position."""

from __future__ import annotations

import json
import secrets
from typing import Any

import redis
from chatserver.chat_messages import MAX_TEXT_LENGTH, ChatMessage
from chatserver.forms import MessageForm
from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from showcase import breaking, tasks
from showcase.forms import NotificationForm, OrderForm, TaskForm
from showcase.guests import name_of
from showcase.models import Order, Task
from showcase.rooms import ROOMS, past_of, who_is_in
from ws4redis.live import Fragments, mark_read, notify, unread_count, unread_notifications
from ws4redis.publisher import RedisPublisher
from ws4redis.tokens import connection_token

# So that one need not wait for an hour to see a token expire.
TOKEN_SECONDS = 10
MOST_SHOWN = 20


def wants_json(request: HttpRequest) -> bool:
    """Tell whether our script asks, rather than the browser by itself."""
    return request.accepts('application/json') and not request.accepts('text/html')


def done(request: HttpRequest, page: str) -> HttpResponse:
    """Answer a form: what it changed comes by the websocket, or with the page."""
    return JsonResponse({}) if wants_json(request) else redirect(page)


def refused(request: HttpRequest, error: str, *, status: int = 400) -> HttpResponse:
    """Say why nothing was done."""
    if wants_json(request):
        return JsonResponse({'error': error}, status=status)
    return render(request, 'showcase/refused.html', {'error': error}, status=status)


@require_safe
def overview(request: HttpRequest) -> HttpResponse:
    """Show what there is; the figures come by the websocket."""
    return render(request, 'showcase/overview.html')


# Chat


def room(request: HttpRequest, name: str, transport: str = 'websocket') -> HttpResponse:
    """Show a room with its past, or publish a message there.

    Messages come here only where there is no websocket to send them by.
    """
    if name not in ROOMS:
        raise Http404(f'there is no room {name!r}')
    who = name_of(request)
    if request.method == 'POST':
        return say(request, name, who)
    past = past_of(name)
    context = {
        'room': name,
        'rooms': ROOMS,
        'about': ROOMS[name],
        'transport': transport,
        'name': who,
        'past': past,
        'members': who_is_in(name),
        # Others see the name in the list of who is here.
        'token': token_of(request),
        'max_text_length': MAX_TEXT_LENGTH,
    }
    return render(request, 'showcase/room.html', context)


def say(request: HttpRequest, name: str, who: str) -> HttpResponse:
    form = MessageForm(request.POST, request=request)
    if not form.is_valid():
        return refused(request, form.error_text())
    message = ChatMessage(text=form.cleaned_data['message'], sender=who)
    try:
        publisher = RedisPublisher(facility=f'room/{name}', broadcast=True)
        publisher.publish_json(json.loads(message.to_json()))
    except redis.RedisError:
        return refused(request, 'Redis cannot be reached. Your message was not sent.', status=503)
    return done(request, request.path)


def token_of(request: HttpRequest, expire: float = 24 * 3600) -> str:
    """Return a token that tells others the name of who asks."""
    user = request.user if request.user.is_authenticated else None
    info = {'name': name_of(request)}
    return connection_token(user, expire=expire, info=info, session=request.session)


# Tasks


def task_list(request: HttpRequest) -> HttpResponse:
    """Show the last tasks, or start one."""
    form = TaskForm(request.POST or None)
    if request.method == 'POST':
        if not form.is_valid():
            return refused(request, 'There is no such task.')
        try:
            tasks.start(form.cleaned_data['kind'], name_of(request))
        except tasks.TooManyTasks as exc:
            return refused(request, str(exc), status=429)
        return done(request, 'tasks')
    context = {'tasks': Task.objects.all()[: tasks.MOST_TASKS_SHOWN], 'kinds': Task.Kind}
    return render(request, 'showcase/tasks.html', context)


@require_safe
def task_rows(request: HttpRequest) -> HttpResponse:
    """Return the list alone, for a page that has missed something."""
    context = {'tasks': Task.objects.all()[: tasks.MOST_TASKS_SHOWN]}
    return render(request, 'showcase/task_rows.html', context)


# Orders


def order_list(request: HttpRequest) -> HttpResponse:
    """Show the table, or add a line to it."""
    form = OrderForm(request.POST or None)
    if request.method == 'POST':
        if not form.is_valid():
            return refused(request, 'Name an item, and how many: 1 to 999.')
        form.save()
        tasks.forget_old_ones()
        return done(request, 'orders')
    return render(request, 'showcase/orders.html', {'orders': Order.objects.all(), 'form': form})


@require_safe
def order_table(request: HttpRequest) -> HttpResponse:
    """Return the table alone, for a page that has missed something."""
    return render(request, 'showcase/order_table.html', {'orders': Order.objects.all()})


@require_POST
def change_order(request: HttpRequest, pk: int, change: str) -> HttpResponse:
    """Change a line; all browsers are told when it is saved."""
    order = get_object_or_404(Order, pk=pk)
    if change == 'more':
        order.quantity = min(order.quantity + 1, 999)
    elif change == 'less':
        order.quantity = max(order.quantity - 1, 1)
    elif change == 'advance':
        order.state = order.next_state or order.state
    elif change == 'remove':
        order.delete()
        return done(request, 'orders')
    else:
        raise Http404(f'there is no change {change!r}')
    order.save()
    return done(request, 'orders')


# Notifications


@login_required
def notifications(request: HttpRequest) -> HttpResponse:
    """Show what is unread; notify a user, or mark all as read."""
    if request.method == 'POST' and 'read' in request.POST:
        mark_read(request.user)
        show_nothing_unread(request)
        return done(request, 'notifications')
    form = NotificationForm(request.POST or None, initial={'user': request.user.get_username()})
    if request.method == 'POST':
        if not form.is_valid():
            return refused(request, 'Name a user, and say something in at most 120 characters.')
        send_notification(request, form.cleaned_data)
        return done(request, 'notifications')
    context = {
        'form': form,
        'count': unread_count(request.user),
        'notifications': unread_notifications(request.user)[:MOST_SHOWN],
    }
    return render(request, 'showcase/notifications.html', context)


def send_notification(request: HttpRequest, given: dict[str, Any]) -> None:
    user, text, level = given['user'], given['text'], given['level']
    title = f'From {request.user.get_username()}'
    notify(user, text, title=title, level=level, url=request.path)
    notification = {'text': text, 'title': title, 'level': level}
    inbox = Fragments('inbox', users=[user])
    inbox.prepend('inbox', 'showcase/notification.html', {'notification': notification})


def show_nothing_unread(request: HttpRequest) -> None:
    inbox = Fragments('inbox', users=[request.user])
    inbox.update('inbox', 'showcase/notification_list.html', {'notifications': []})


@login_required
@require_safe
def notification_list(request: HttpRequest) -> HttpResponse:
    """Return the list alone, for a page that has missed something."""
    context = {'notifications': unread_notifications(request.user)[:MOST_SHOWN]}
    return render(request, 'showcase/notification_items.html', context)


# Tokens


@require_safe
def tokens(request: HttpRequest) -> HttpResponse:
    """Show what happens to a connection whose token expires."""
    return render(request, 'showcase/tokens.html', {'seconds': TOKEN_SECONDS})


@never_cache
@require_safe
def new_token(request: HttpRequest) -> HttpResponse:
    """Give a token that expires soon."""
    return JsonResponse({'token': token_of(request, TOKEN_SECONDS)})


# Breaking


@require_safe
def break_it(request: HttpRequest) -> HttpResponse:
    """Show what arrives, and what is missing, while things are broken."""
    # Cutting the connection means that of this session, so there must be one.
    name_of(request)
    context = {
        'why_not': {way: breaking.why_not(way) for way in breaking.WAYS},
        'own_channel': f'own/{secrets.token_hex(8)}',
        'debug': settings.DEBUG,
    }
    return render(request, 'showcase/break.html', context)


@require_POST
def break_something(request: HttpRequest, way: str) -> HttpResponse:
    """Break something on purpose."""
    if way not in breaking.WAYS:
        raise Http404(f'there is no way {way!r}')
    if reason := breaking.why_not(way):
        return refused(request, reason, status=403)
    try:
        breaking.WAYS[way](request)
    except redis.RedisError as exc:
        return refused(request, f'Redis does not answer: {exc}', status=503)
    return done(request, 'break')
