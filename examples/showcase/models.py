"""What the live table and the list of tasks show."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from ws4redis.live import live_model


@live_model('orders', template='showcase/order_row.html')
class Order(models.Model):
    """A line of the live table: saved or deleted anywhere, it changes in all browsers."""

    class State(models.TextChoices):
        """What becomes of an order, in this order."""

        NEW = 'new', 'New'
        PACKED = 'packed', 'Packed'
        SENT = 'sent', 'Sent'

    item = models.CharField(max_length=40)
    quantity = models.PositiveSmallIntegerField(default=1)
    state = models.CharField(max_length=8, choices=State, default=State.NEW)

    class Meta:
        ordering: ClassVar = ['pk']

    def __str__(self) -> str:
        return f'{self.quantity} × {self.item}'

    @property
    def next_state(self) -> Order.State | None:
        """What comes next, None for what was sent."""
        states = list(Order.State)
        place = states.index(Order.State(self.state)) + 1
        return states[place] if place < len(states) else None


@live_model('tasks', template='showcase/task_row.html', prepend=True)
class Task(models.Model):
    """A task that somebody started; its progress is published, not stored."""

    class Kind(models.TextChoices):
        """What there is to do."""

        CHECKSUM = 'checksum', 'Checksum Python’s library'
        IMPORT = 'import', 'Import orders'
        DAMAGED = 'damaged', 'Import a damaged list'

    kind = models.CharField(max_length=12, choices=Kind)
    started_by = models.CharField(max_length=150)
    started_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ['-pk']

    def __str__(self) -> str:
        return f'{self.get_kind_display()}, started by {self.started_by}'

    @property
    def facility(self) -> str:
        """The channel on which its progress is told."""
        return f'task/{self.pk}'
