"""
One timer for many deadlines: a wheel of slots, turned by whoever owns the clock.

A reactor timer costs microseconds to set and to cancel, and a gateway sets one or two for each
of its connections. Here both are one dictionary operation, at the price of being up to one
slot late. After Varghese and Lauck, "Hashed and hierarchical timing wheels" (1987).
"""

from __future__ import annotations

from typing import Generic, TypeVar

__all__ = ["Wheel"]

T = TypeVar("T")


class Wheel(Generic[T]):
    """
    Items that fall due. An item has one deadline at a time; setting it again moves it.

    Args:
        slot_s: Seconds a slot covers: how late an item can be.
    """

    __slots__ = ("_at", "_slot_s", "_slots", "_turned")

    def __init__(self, slot_s: float) -> None:
        self._slot_s = slot_s
        self._slots: dict[int, dict[T, None]] = {}
        self._at: dict[T, int] = {}
        self._turned: int | None = None

    def set(self, item: T, due: float) -> None:
        """
        Let *item* fall due at *due* (seconds of the owner's clock), instead of when it would have.
        """
        slot = int(due / self._slot_s) + 1
        if self._turned is not None and slot <= self._turned:
            slot = self._turned + 1
        before = self._at.get(item)
        if before == slot:
            return
        if before is not None:
            self._leave(item, before)
        self._at[item] = slot
        self._slots.setdefault(slot, {})[item] = None

    def drop(self, item: T) -> None:
        """
        Let *item* never fall due; one that is not here is ignored.
        """
        slot = self._at.pop(item, None)
        if slot is not None:
            self._leave(item, slot)

    def turn(self, now: float) -> list[T]:
        """
        Take out everything that is due at *now*, the longest due first.
        """
        current = int(now / self._slot_s)
        if self._turned is None:
            self._turned = min(self._slots, default=current) - 1
        due: list[T] = []
        if current - self._turned > len(self._slots):
            slots = sorted(slot for slot in self._slots if slot <= current)
        else:
            slots = [slot for slot in range(self._turned + 1, current + 1) if slot in self._slots]
        for slot in slots:
            for item in self._slots.pop(slot):
                del self._at[item]
                due.append(item)
        self._turned = max(current, self._turned)
        return due

    def _leave(self, item: T, slot: int) -> None:
        items = self._slots[slot]
        del items[item]
        if not items:
            del self._slots[slot]

    def __len__(self) -> int:
        return len(self._at)
