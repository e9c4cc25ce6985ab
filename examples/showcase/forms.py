"""What browsers post to these pages."""

from __future__ import annotations

from typing import ClassVar

from django import forms
from django.contrib.auth.models import User

from showcase.models import Order, Task

LEVELS = (
    ('info', 'Info'),
    ('success', 'Success'),
    ('warning', 'Warning'),
    ('error', 'Error'),
)


class OrderForm(forms.ModelForm):
    """A new line of the live table."""

    class Meta:
        model = Order
        fields: ClassVar = ['item', 'quantity']
        widgets: ClassVar = {'item': forms.TextInput(attrs={'autocomplete': 'off'})}

    quantity = forms.IntegerField(min_value=1, max_value=999, initial=1)


class TaskForm(forms.Form):
    """The kind of a task to start."""

    kind = forms.ChoiceField(choices=Task.Kind.choices)


class NotificationForm(forms.Form):
    """A notification, and whom it is for."""

    user = forms.ModelChoiceField(
        User.objects.filter(is_active=True).order_by('username'),
        to_field_name='username',
        label='To',
        empty_label=None,
    )
    level = forms.ChoiceField(choices=LEVELS)
    text = forms.CharField(
        max_length=120,
        initial='Your order was packed.',
        widget=forms.TextInput(attrs={'autocomplete': 'off'}),
    )
