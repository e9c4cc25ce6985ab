"""The pages of the example."""

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import include, path

from chatserver.views import BroadcastChat, GroupChat, UserChat

urlpatterns = [
    path('', include('showcase.urls')),
    path('chat/', BroadcastChat.as_view(), name='chat'),
    path('userchat/', UserChat.as_view(), name='userchat'),
    path('groupchat/', GroupChat.as_view(), name='groupchat'),
    path('', include('livepages.urls')),
    path('', include('dialogues.urls')),
    path('login/', LoginView.as_view(redirect_authenticated_user=True), name='login'),
    path('logout/', LogoutView.as_view(), name='logout'),
    # Before admin's own.
    path('admin/ws4redis/', include('ws4redis.dashboard.live_urls')),
    path('admin/', admin.site.urls),
    # With DEBUG, under any WSGI server; else NGINX, Apache or uWSGI serve STATIC_ROOT.
    *staticfiles_urlpatterns(),
]
