"""Look-ups: whether what connections were granted still holds, by session store and database."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import (
    BACKEND_SESSION_KEY,
    HASH_SESSION_KEY,
    SESSION_KEY,
    get_user_model,
    load_backend,
)
from django.utils.crypto import constant_time_compare

from ws4redis.handshake.blocking import with_database
from ws4redis.hub.endings import Verdict
from ws4redis.hub.identity import Identity
from ws4redis.protocol.end_codes import EndCode
from ws4redis.publishing.identity import (
    auth_hashes,
    drop_unknown_key,
    group_names,
    is_stamp_of,
    name_of_user,
)

logger = logging.getLogger('ws4redis')

STAYS = Verdict()
FAILED = Verdict(failed=True)


class LookUps:
    """Ask about identities, in the pool; see :class:`ws4redis.hub.endings.Checks`."""

    def __init__(self) -> None:
        self._has_failed = False

    def verdicts(self, identities: Sequence[Identity]) -> list[Verdict]:
        return with_database(self._all, verdict_of, identities)

    def expiries(self, identities: Sequence[Identity]) -> list[Verdict]:
        return with_database(self._of_expiries, identities)

    def _all(
        self, look_up: Callable[[Identity], Verdict], identities: Sequence[Identity]
    ) -> list[Verdict]:
        verdicts = []
        for identity in identities:
            try:
                verdict = look_up(identity)
            except (Exception, SystemExit) as exc:  # noqa: BLE001 (whatever a store raises)
                self._note_failure(exc)
                verdict = FAILED
            else:
                self._has_failed = False
            verdicts.append(verdict)
        return verdicts

    def _of_expiries(self, identities: Sequence[Identity]) -> list[Verdict]:
        model = session_model()
        if model is None:
            return [STAYS] * len(identities)
        try:
            keys = [identity.session for identity in identities]
            rows = model._default_manager.filter(session_key__in=keys)
            expiries = dict(rows.values_list('session_key', 'expire_date'))
        except Exception as exc:  # noqa: BLE001 (whatever a database raises)
            self._note_failure(exc)
            return [FAILED] * len(identities)
        return [
            Verdict(check_at=expiries[identity.session].timestamp())
            if identity.session in expiries
            else Verdict(EndCode.SESSION_ENDED)
            for identity in identities
        ]

    def _note_failure(self, exc: BaseException) -> None:
        # Each change of state is logged once, not each look-up.
        if not self._has_failed:
            self._has_failed = True
            logger.error(
                'a session or user could not be looked up; the sweep tries again', exc_info=exc
            )


def verdict_of(identity: Identity) -> Verdict:
    """Look one identity up. May block, and raise whatever store or database raise."""
    if identity.session is None:
        return _verdict_of_user(identity)
    session = session_store(identity.session)
    drop_unknown_key(session)
    if session.session_key is None:
        return Verdict(EndCode.SESSION_ENDED)
    is_vouched = identity.user_id is not None and identity.stamp is None
    verdict = _verdict_of_login(identity, session) if is_vouched else _verdict_of_user(identity)
    return verdict if verdict.code else Verdict(check_at=_expiry_of(identity.session))


def session_store(key: str) -> Any:
    engine: Any = import_module(settings.SESSION_ENGINE)
    return engine.SessionStore(key)


def session_model() -> Any:
    """Return the model of sessions, None for a store that has none."""
    engine: Any = import_module(settings.SESSION_ENGINE)
    get_model_class = getattr(engine.SessionStore, 'get_model_class', None)
    return None if get_model_class is None else get_model_class()


def _expiry_of(session_key: str) -> float | None:
    model = session_model()
    if model is None:
        return None
    rows = model._default_manager.filter(session_key=session_key)
    expiry = rows.values_list('expire_date', flat=True).first()
    return None if expiry is None else float(expiry.timestamp())


def _verdict_of_login(identity: Identity, session: Any) -> Verdict:
    """Look at the user of a session as Django does for a request, but change nothing.

    Django gives a session another key where its hash was made by a former ``SECRET_KEY``. Here
    nobody could tell the browser.
    """
    if session.get(SESSION_KEY) != identity.user_id:
        return Verdict(EndCode.SESSION_ENDED)
    user = None
    backend = session.get(BACKEND_SESSION_KEY)
    if backend in settings.AUTHENTICATION_BACKENDS:
        user = load_backend(backend).get_user(_primary_key(identity.user_id))
    if user is None:
        return _verdict_of_absence(identity)
    hashes = auth_hashes(user)
    known = session.get(HASH_SESSION_KEY) or ''
    if hashes and not any(constant_time_compare(known, auth_hash) for auth_hash in hashes):
        return Verdict(EndCode.CREDENTIALS_CHANGED)
    return _verdict_of_names(identity, user)


def _verdict_of_user(identity: Identity) -> Verdict:
    """Look at a user whom no session vouches for."""
    user = _row_of(identity)
    if user is None:
        # A user whom Django never knew, named by a token of somebody else.
        is_foreign = identity.user_id is None and identity.stamp is None
        return STAYS if is_foreign else Verdict(EndCode.DELETED)
    if not getattr(user, 'is_active', True):
        return Verdict(EndCode.DEACTIVATED)
    if identity.stamp is not None and not is_stamp_of(identity.stamp, user):
        return Verdict(EndCode.CREDENTIALS_CHANGED)
    return _verdict_of_names(identity, user)


def _verdict_of_absence(identity: Identity) -> Verdict:
    user = _row_of(identity)
    if user is None:
        return Verdict(EndCode.DELETED)
    is_active = getattr(user, 'is_active', True)
    return Verdict(EndCode.SESSION_ENDED if is_active else EndCode.DEACTIVATED)


def _verdict_of_names(identity: Identity, user: Any) -> Verdict:
    # Its channels bear the old name.
    if name_of_user(user) != identity.user:
        return Verdict(EndCode.CREDENTIALS_CHANGED)
    if identity.knows_groups and set(group_names(user)) != set(identity.groups):
        return Verdict(EndCode.GROUPS_CHANGED)
    # They are a group of their own, where SUBSCRIBE is 'staff'.
    if identity.is_staff and getattr(user, 'is_staff', False) is not True:
        return Verdict(EndCode.GROUPS_CHANGED)
    return STAYS


def _row_of(identity: Identity) -> Any:
    model = get_user_model()
    if identity.user_id is not None:
        rows = model._default_manager.filter(pk=_primary_key(identity.user_id))
    elif identity.user is not None:
        rows = model._default_manager.filter(**{model.USERNAME_FIELD: identity.user})
    else:
        return _NOBODY
    return rows.first()


class _Nobody:
    """Stand for the user of an anonymous session."""

    username = None


_NOBODY = _Nobody()


def _primary_key(user_id: str | None) -> Any:
    field: Any = get_user_model()._meta.pk
    return field.to_python(user_id)
