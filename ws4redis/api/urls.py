"""For other programs: ``path('websockets/api/', include('ws4redis.api.urls'))``."""

from __future__ import annotations

from django.urls import path

from ws4redis.api.views import method_view

app_name = 'ws4redis_api'
urlpatterns = [path('<slug:method>', method_view, name='method')]
