"""The live page: ``path('admin/ws4redis/', include('ws4redis.dashboard.live_urls'))``."""

from __future__ import annotations

from django.urls import path

from ws4redis.dashboard import live

app_name = 'ws4redis_live'
urlpatterns = [
    path('', live.page, name='page'),
    path('data/', live.data, name='data'),
    path('channel/', live.channel, name='channel'),
    path('who/', live.who, name='who'),
    path('answers/', live.answers, name='answers'),
    path('end/', live.end, name='end'),
    path('publish/', live.publish, name='publish'),
]
