"""What a browser posts to the three chats."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib.auth.models import Group, User
from django.http import HttpRequest

from chatserver.chat_messages import MAX_NAME_LENGTH, MAX_TEXT_LENGTH


class MessageForm(forms.Form):
    """A message, and in subclasses its recipient."""

    message = forms.CharField(max_length=MAX_TEXT_LENGTH)

    def __init__(self, *args: Any, request: HttpRequest, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request = request

    @property
    def recipients(self) -> list[str]:
        """The names to choose from."""
        return []

    @property
    def recipient(self) -> str:
        """The name that was chosen; only for a valid form."""
        return ''

    @property
    def sender(self) -> str:
        """The name of who posts; only for a valid form."""
        return self.request.user.get_username()

    def error_text(self) -> str:
        """Return all errors as one text."""
        return ' '.join(
            f'{name}: {error}' for name, errors in self.errors.items() for error in errors
        )


class BroadcastForm(MessageForm):
    """Visitors that are not logged in may choose a name."""

    name = forms.CharField(max_length=MAX_NAME_LENGTH, required=False)

    @property
    def sender(self) -> str:
        return self.request.user.get_username() or self.cleaned_data['name'] or 'Guest'


class UserForm(MessageForm):
    """To one of the other users."""

    user = forms.ModelChoiceField(User.objects.none(), to_field_name='username')

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        others = User.objects.filter(is_active=True).exclude(pk=self.request.user.pk)
        self.fields['user'].queryset = others.order_by('is_superuser', 'username')

    @property
    def recipients(self) -> list[str]:
        return [user.get_username() for user in self.fields['user'].queryset]

    @property
    def recipient(self) -> str:
        return self.cleaned_data['user'].get_username()


class GroupForm(MessageForm):
    """To one of the groups that the user is in."""

    group = forms.ModelChoiceField(Group.objects.none(), to_field_name='name')

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields['group'].queryset = self.request.user.groups.order_by('name')

    @property
    def recipients(self) -> list[str]:
        return [group.name for group in self.fields['group'].queryset]

    @property
    def recipient(self) -> str:
        return self.cleaned_data['group'].name
