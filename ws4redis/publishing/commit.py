"""Publications that wait for the commit of a database transaction."""

from __future__ import annotations

from collections.abc import Callable

from asgiref.sync import sync_to_async
from django.db import transaction

from ws4redis.conf import conf


def waits_for_commit(on_commit: bool | None) -> bool:  # noqa: FBT001 - as the publisher got it
    """Tell whether a publication waits for a commit; None: as the settings say."""
    return conf.WS4REDIS_ON_COMMIT if on_commit is None else on_commit


def on_database_commit(publish: Callable[[], object], *, using: str | None) -> None:
    """Publish when the transaction of a database commits; at once where there is none.

    What fails then is logged and does not fail the request, whose data is committed.
    """
    transaction.on_commit(lambda: _discard(publish()), using=using, robust=True)


async def aon_database_commit(publish: Callable[[], object], *, using: str | None) -> None:
    """Do the same from a coroutine: Django's transactions belong to its synchronous thread."""
    await sync_to_async(on_database_commit)(publish, using=using)


def _discard(result: object) -> None:
    pass
