"""Requests as views and the websocket loop see them: with a user and a session."""

from __future__ import annotations

from collections.abc import Iterable

from django.contrib.auth import login
from django.contrib.auth.models import AnonymousUser, Group, User
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest
from django.test import RequestFactory


def make_user(username: str, *, groups: Iterable[str] = ()) -> User:
    """Create a user, and its groups where they are missing."""
    user = User.objects.create_user(username=username, password='secret')
    user.groups.set(Group.objects.get_or_create(name=name)[0] for name in groups)
    return user


def anonymous_request(path: str = '/') -> HttpRequest:
    """Return a request in which nobody is logged in, with a session that is not saved."""
    request = RequestFactory().get(path)
    request.session = SessionStore()
    request.user = AnonymousUser()
    return request


def logged_in_request(user: User, path: str = '/') -> HttpRequest:
    """Return a request with the session that a login of the user makes."""
    request = anonymous_request(path)
    login(request, user, backend='django.contrib.auth.backends.ModelBackend')
    request.session.save()
    return request
