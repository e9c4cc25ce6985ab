"""Models whose saves and deletes change the pages that show them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import models
from django.db.models.signals import post_delete, post_save

from ws4redis.live.audience import To, publisher_to
from ws4redis.live.fragments import Fragments
from ws4redis.publishing.commit import on_database_commit

logger = logging.getLogger('ws4redis')

ModelClass = TypeVar('ModelClass', bound=type[models.Model])
OfInstance = Callable[[Any], Any]


@dataclass(frozen=True)
class _Live:
    """How a model is shown."""

    facility: str | OfInstance
    audience: OfInstance | None
    template: str | Sequence[str] | None
    context_name: str
    fields: tuple[str, ...]
    target: str | None
    prepend: bool

    def facility_of(self, instance: models.Model) -> str:
        return self.facility if isinstance(self.facility, str) else str(self.facility(instance))

    def audience_of(self, instance: models.Model) -> To:
        if self.audience is None:
            return {}
        audience = self.audience(instance)
        # What is meant for few must not go to all, should the project's code be wrong.
        if not isinstance(audience, Mapping) or not audience:
            raise ValueError(
                f'audience of a live model must return a dictionary such as {{"users": [user]}}, '
                f'not {audience!r}'
            )
        return audience  # type: ignore[return-value]


_live: dict[type[models.Model], _Live] = {}


def live_model(
    facility: str | OfInstance,
    *,
    template: str | Sequence[str] | None = None,
    fields: Sequence[str] = (),
    audience: OfInstance | None = None,
    target: str | None = None,
    prepend: bool = False,
) -> Callable[[ModelClass], ModelClass]:
    """Publish a model's instances when they are saved or deleted, once that is committed.

    With a ``template`` browsers get the rendered row: a new one is appended (or prepended) to the
    element ``target``, by default the one whose ``id`` is the facility; a changed one replaces the
    element whose ``id`` is ``live_id(instance)``, in templates ``{{ order|live_id }}``. The
    template finds the instance under the name of its model. Without a template they get JSON with
    the ``fields``.

    ``facility`` is a name, or a function of the instance that returns one; ``audience`` is a
    function of the instance that returns whom it is shown to, as ``RedisPublisher`` takes it. By
    default that is everybody whom ``WS4REDIS_FACILITIES`` lets subscribe to the facility. What
    saves without signals (``QuerySet.update``, ``bulk_create``) calls ``publish_saved``.
    """
    if (template is None) == (not fields):
        raise TypeError('live_model needs either a template or fields')
    if isinstance(fields, str):
        raise TypeError('fields of live_model must be a list of names, not a string')

    def decorate(model: ModelClass) -> ModelClass:
        is_class = isinstance(model, type)
        if not is_class or not issubclass(model, models.Model):
            raise TypeError(f'live_model decorates models, not {model!r}')
        if model._meta.abstract:
            raise TypeError(
                f'{model.__name__} is abstract and never saved; decorate the models that derive '
                'from it'
            )
        name = model._meta.model_name or ''
        _live[model] = _Live(facility, audience, template, name, tuple(fields), target, prepend)
        uid = f'ws4redis.live.{model._meta.label}'
        post_save.connect(_saved, sender=model, dispatch_uid=uid)
        post_delete.connect(_deleted, sender=model, dispatch_uid=uid)
        return model

    return decorate


def live_id(instance: models.Model) -> str:
    """Return the ``id`` of the element that shows an instance."""
    return _id_of(instance, instance.pk)


def publish_saved(instance: models.Model, *, created: bool = False) -> None:
    """Publish an instance of a live model as its save would, once the transaction commits."""
    live = _live_of(instance)
    pk = instance.pk
    using = instance._state.db
    on_database_commit(lambda: _publish_saved(live, instance, pk, created=created), using=using)


def publish_deleted(instance: models.Model) -> None:
    """Publish that an instance is gone, once the transaction commits."""
    live = _live_of(instance)
    # Django takes the key away from what was deleted, and audiences may be found by it.
    pk = instance.pk
    facility = live.facility_of(instance)
    audience = live.audience_of(instance)
    using = instance._state.db
    on_database_commit(
        lambda: _publish_deleted(live, instance, pk, facility, audience), using=using
    )


def _saved(
    sender: type[models.Model],
    instance: models.Model,
    *,
    created: bool,
    raw: bool = False,
    **kwargs: object,
) -> None:
    # While fixtures are loaded, what an instance refers to may not be there yet.
    if not raw:
        publish_saved(instance, created=created)


def _deleted(sender: type[models.Model], instance: models.Model, **kwargs: object) -> None:
    try:
        publish_deleted(instance)
    except Exception:
        # A receiver never breaks what sent the signal.
        logger.exception('the deletion of %s is not published', instance._meta.label)


def _publish_saved(live: _Live, instance: models.Model, pk: object, *, created: bool) -> None:
    if instance.pk != pk:
        # Deleted since, or made another one: a row of it would stay on the pages for ever.
        return
    facility = live.facility_of(instance)
    audience = live.audience_of(instance)
    if live.template is None:
        values = {name: _value_of(instance, name) for name in live.fields}
        event = {'type': 'saved', 'created': created, 'values': values}
        _publish_event(facility, audience, instance, pk, event)
        return
    row = _id_of(instance, pk)
    context = {live.context_name: instance}
    fragments = Fragments(facility, **audience)
    if not created:
        fragments.replace(row, live.template, context, on_commit=False)
    else:
        add = fragments.prepend if live.prepend else fragments.append
        add(live.target or facility, live.template, context, on_commit=False)


def _publish_deleted(
    live: _Live, instance: models.Model, pk: object, facility: str, audience: To
) -> None:
    if live.template is None:
        _publish_event(facility, audience, instance, pk, {'type': 'deleted'})
    else:
        Fragments(facility, **audience).remove(_id_of(instance, pk), on_commit=False)


def _publish_event(
    facility: str, audience: To, instance: models.Model, pk: object, event: dict[str, Any]
) -> None:
    message = {**event, 'model': instance._meta.label_lower, 'pk': pk}
    publisher_to(facility, audience).publish_json(message, expire=0, on_commit=False)


def _id_of(instance: models.Model, pk: object) -> str:
    return f'{instance._meta.model_name}-{pk}'


def _value_of(instance: models.Model, name: str) -> object:
    """Return what JSON holds of a field, a property or a method without arguments."""
    value = getattr(instance, name)
    if isinstance(value, models.Model):
        return value.pk
    return value() if callable(value) else value


def _live_of(instance: models.Model) -> _Live:
    for model in type(instance).__mro__:
        if model in _live:
            return _live[model]
    raise TypeError(f'{type(instance).__name__} is not a live model')
