"""A site with the elements of ``ws4redis-elements.js``, and with htmx and Turbo."""

from __future__ import annotations

from pathlib import Path

from django.contrib.auth import get_user_model, login
from django.http import HttpRequest, HttpResponse
from django.template import Context, RequestContext, Template
from django.urls import path
from django.views.static import serve

import ws4redis

STATIC = Path(ws4redis.__file__).parent / 'static'
NPM = Path(__file__).parent / 'npm' / 'node_modules'

ELEMENTS = """{% load ws4redis %}<!doctype html><html lang="en"><title>Live</title>
{% ws4redis_elements %}"""
PAGES = {
    'elements': ELEMENTS + '<main></main>',
    'untouched': '<!doctype html><title>x</title><script src="/static/js/ws4redis-elements.js">'
    '</script><ws4redis-progress facility="job"></ws4redis-progress>',
    'notifications': ELEMENTS
    + '<ws4redis-badge count="0"></ws4redis-badge><ws4redis-toasts></ws4redis-toasts>',
    'htmx': """<!doctype html><html lang="en"><title>htmx</title>
        <script src="/npm/htmx.org/dist/htmx.js"></script>
        <script src="/npm/htmx-ext-ws/ws.js"></script>
        <body hx-ext="ws" ws-connect="/ws/orders?subscribe-broadcast&no-heartbeat">
        <ul id="orders"></ul></body>""",
    'turbo': """<!doctype html><html lang="en"><title>Turbo</title>
        <script src="/npm/@hotwired/turbo/dist/turbo.es2017-umd.js"></script>
        <turbo-stream-source src="{{ WEBSOCKET_URI }}orders?subscribe-broadcast&no-heartbeat">
        </turbo-stream-source><ul id="orders"></ul>""",
}
POLICY = "default-src 'self'; connect-src 'self' ws:; img-src 'self' data:"
# A server that has just begun has one row.
rows: list[str] = ['all']


def page(request: HttpRequest, name: str) -> HttpResponse:
    """Show one of the pages, to a user whom the query names."""
    if username := request.GET.get('user'):
        user, _ = get_user_model().objects.get_or_create(username=username)
        login(request, user, backend='django.contrib.auth.backends.ModelBackend')
    html = Template(PAGES[name]).render(RequestContext(request))
    has_policy = name not in ('htmx', 'turbo') and 'policy' not in request.GET
    return HttpResponse(html, headers={'Content-Security-Policy': POLICY} if has_policy else {})


def current_rows(request: HttpRequest) -> HttpResponse:
    """Render the list as it is now: what a test has posted before."""
    if request.method == 'GET' and 'set' in request.GET:
        rows[:] = request.GET.getlist('set')
    html = '{% for row in rows %}<li id="row-{{ row }}">{{ row }}</li>{% endfor %}'
    return HttpResponse(Template(html).render(Context({'rows': rows})))


urlpatterns = [
    path('page/<name>/', page),
    path('rows/', current_rows),
    path('static/<path:path>', serve, {'document_root': STATIC}),
    path('npm/<path:path>', serve, {'document_root': NPM}),
]
