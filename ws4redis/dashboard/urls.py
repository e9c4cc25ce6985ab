"""For monitoring: ``path('websockets/', include('ws4redis.dashboard.urls'))``."""

from __future__ import annotations

from django.urls import path

from ws4redis.dashboard import views

app_name = 'ws4redis'
urlpatterns = [
    path('metrics/', views.metrics, name='metrics'),
    path('health/', views.health, name='health'),
    path('ready/', views.ready, name='ready'),
]
