"""What a setting is: its default, what it must look like, and what it means, in one place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeAlias, TypeVar, cast, overload

from django.conf import Settings, settings
from django.core.checks import CheckMessage, Error

T = TypeVar('T')

# Returns what is wrong with a value, to stand after the setting's name, or None.
Judge: TypeAlias = Callable[[Any], str | None]


class Setting(Generic[T]):
    """Declare one setting, as an attribute of a class that is named as the setting is.

    ``id`` is that of the error where ``judge`` complains about a value, and ``hint`` says what to
    do then. ``about`` tells what the setting is for; the reference begins with the same words.
    ``read`` turns what the project wrote, or the default, into what the package works with.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - Django's name
        *,
        default: Any,
        judge: Judge,
        about: str,
        hint: str,
        read: Callable[[Any], T] | None = None,
    ) -> None:
        self.id = id
        self.default = default
        self.judge = judge
        self.hint = hint
        self.name = ''
        self._read = read
        self.__doc__ = about

    def __set_name__(self, owner: type[Any], name: str) -> None:
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type[Any]) -> Setting[T]: ...

    @overload
    def __get__(self, instance: object, owner: type[Any]) -> T: ...

    def __get__(self, instance: object, owner: type[Any]) -> T | Setting[T]:
        """Return the value, read at each access, so that ``override_settings`` counts at once."""
        if instance is None:
            return self
        # A handshake reads twenty of them. Through Django's lazy object each costs microseconds.
        wrapped = object.__getattribute__(settings, '_wrapped')
        if type(wrapped) is Settings:
            value = wrapped.__dict__.get(self.name, self.default)
        else:
            value = getattr(settings, self.name, self.default)
        return cast('T', value) if self._read is None else self._read(value)

    def check(self) -> list[CheckMessage]:
        """Return the error of this setting, if the project sets it and it is wrong."""
        if not hasattr(settings, self.name):
            return []
        complaint = self.judge(getattr(settings, self.name))
        if complaint is None:
            return []
        return [Error(f'{self.name} {complaint}.', hint=self.hint, id=self.id)]
