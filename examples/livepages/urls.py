"""The pages of this application."""

from django.urls import path

from livepages.views import Counter, Visitors

urlpatterns = [
    path('counter/', Counter.as_view(), name='counter'),
    path('visitors/', Visitors.as_view(), name='visitors'),
]
