"""
Who on this node listens to what.

Pure bookkeeping: no I/O and no awaiting. The hub asks it who hears a channel and whether that
was the first or the last listener, and tells the broker accordingly.

Listeners of a channel are kept by *form*: the pair of dialect and framing whose bytes are the
same for all of them, so that a publication is encoded and framed once for each form.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from enum import Enum
from typing import Generic, TypeVar

__all__ = ["Audience", "Still", "Subscriptions"]

Form = TypeVar("Form", bound=Hashable)
Listener = TypeVar("Listener", bound=Hashable)


class Still(Enum):
    """
    What is left of a channel here.
    """

    HEARD = "heard"
    SILENT = "silent"


class Audience(Generic[Form, Listener]):
    """
    The listeners of one channel on this node.

    Attributes:
        forms: Listeners by form; no form is empty.
        size: How many there are in all.
    """

    __slots__ = ("forms", "size")

    def __init__(self) -> None:
        self.forms: dict[Form, dict[Listener, None]] = {}
        self.size = 0

    def __iter__(self) -> Iterator[Listener]:
        for listeners in self.forms.values():
            yield from listeners


class Subscriptions(Generic[Form, Listener]):
    """
    The index: channel to audience.
    """

    __slots__ = ("_audiences",)

    def __init__(self) -> None:
        self._audiences: dict[str, Audience[Form, Listener]] = {}

    def add(self, channel: str, form: Form, listener: Listener) -> bool:
        """
        Let *listener* hear *channel*; True if nobody here did before.
        """
        audience = self._audiences.get(channel)
        first = audience is None
        if audience is None:
            audience = self._audiences[channel] = Audience()
        listeners = audience.forms.setdefault(form, {})
        if listener not in listeners:
            listeners[listener] = None
            audience.size += 1
        return first

    def remove(self, channel: str, form: Form, listener: Listener) -> Still:
        """
        Let *listener* hear *channel* no more; one that did not is ignored.
        """
        audience = self._audiences.get(channel)
        if audience is None:
            return Still.SILENT
        listeners = audience.forms.get(form)
        if listeners is not None and listener in listeners:
            del listeners[listener]
            audience.size -= 1
            if not listeners:
                del audience.forms[form]
        if audience.size:
            return Still.HEARD
        del self._audiences[channel]
        return Still.SILENT

    def audience(self, channel: str) -> Audience[Form, Listener] | None:
        """
        Return who hears *channel* here, or None.
        """
        return self._audiences.get(channel)

    def channels(self) -> list[str]:
        """
        List every channel that somebody here hears.
        """
        return list(self._audiences)

    def __len__(self) -> int:
        return len(self._audiences)
