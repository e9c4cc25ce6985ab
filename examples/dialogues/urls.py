"""The pages of this application."""

from django.urls import path

from dialogues.views import countdown, echo

urlpatterns = [
    path('echo/', echo, name='echo'),
    path('countdown/', countdown, name='countdown'),
]
