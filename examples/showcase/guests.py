"""What visitors are called: users by their name, guests by one that their session keeps."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from livepages.presence import ADJECTIVES, ANIMALS

if TYPE_CHECKING:
    from django.http import HttpRequest

SESSION_KEY = 'guest_name'


def name_of(request: HttpRequest) -> str:
    """Return the name of who asks, and choose one for a new guest."""
    if request.user.is_authenticated:
        return str(request.user.get_username())
    if SESSION_KEY not in request.session:
        request.session[SESSION_KEY] = f'{secrets.choice(ADJECTIVES)} {secrets.choice(ANIMALS)}'
    return str(request.session[SESSION_KEY])
