"""The views of the project that the end-to-end tests serve."""

from __future__ import annotations

import os

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from tests.e2e import subscribers
from ws4redis.publisher import SELF, RedisPublisher


def hello(request: HttpRequest) -> HttpResponse:
    return HttpResponse('hello from Django', content_type='text/plain')


@csrf_exempt
def publish(request: HttpRequest) -> HttpResponse:
    """Publish ``message`` on ``facility`` for the audience ``to`` of who asks."""
    to = request.POST['to']
    publisher = RedisPublisher(
        facility=request.POST['facility'],
        broadcast=to == 'broadcast',
        users=[SELF] if to == 'user' else (),
        groups=[SELF] if to == 'group' else (),
        sessions=[SELF] if to == 'session' else (),
        request=request,
    )
    publisher.publish_message(request.POST['message'])
    return JsonResponse({'channels': sorted(publisher._publishers)})


@csrf_exempt
def subscribe(request: HttpRequest) -> HttpResponse:
    """Let the subscriber of a facility join another channel, or leave it."""
    subscriber = subscribers.opened[request.POST['facility']]
    if request.POST.get('leave'):
        subscriber._subscription.unsubscribe(request.POST['channel'])
    else:
        subscriber._subscription.subscribe(request.POST['channel'])
    return HttpResponse()


@csrf_exempt
def write(request: HttpRequest) -> HttpResponse:
    """Write into the pipe of a facility's subscriber."""
    subscriber = subscribers.opened[request.POST['facility']]
    assert isinstance(subscriber, subscribers.BringsPipe)
    os.write(subscriber.pipe[1], request.POST['message'].encode())
    return HttpResponse()


urlpatterns = [
    path('hello/', hello),
    path('publish/', publish),
    path('subscribe/', subscribe),
    path('write/', write),
]
