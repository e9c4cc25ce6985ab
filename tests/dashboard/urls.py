"""A project with admin, the live page and the views of monitoring."""

from __future__ import annotations

from pathlib import Path

import django.contrib.admin
from django.contrib import admin
from django.urls import include, path
from django.views.static import serve

import ws4redis

ADMIN_STATIC = Path(django.contrib.admin.__file__).parent / 'static'
STATIC = Path(ws4redis.__file__).parent / 'static'

urlpatterns = [
    path('admin/ws4redis/', include('ws4redis.dashboard.live_urls')),
    path('admin/', admin.site.urls),
    path('websockets/', include('ws4redis.dashboard.urls')),
    path('static/admin/<path:path>', serve, {'document_root': ADMIN_STATIC / 'admin'}),
    path('static/<path:path>', serve, {'document_root': STATIC}),
]
