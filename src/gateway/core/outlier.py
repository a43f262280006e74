"""
Which targets of an upstream are left out because they failed requests.

After Envoy's outlier detection, for few targets: five failures in a row eject a target for 30
seconds times how often that happened, never more than a share of them and never the last. An
ejection is forgiven after as long a time in use as the first one lasts.
"""

from __future__ import annotations

__all__ = ["Record", "room_to_eject"]


def room_to_eject(out: int, targets: int, percent: int) -> bool:
    """
    Whether one more of *targets* may be left out when *out* of them are.

    Args:
        percent: Most that may be out, as a share of all. Above 0 it allows one at least, but never all of them.
    """
    most = min(targets - 1, max(1, targets * percent // 100)) if percent else 0
    return out < most


class Record:
    """
    What is known of one target.

    Attributes:
        failures: In a row, while it is used; a request that was answered sets it to 0.
        ejected_until: Seconds; in the past or 0 while it is used.
        ejections: How often it was ejected, less what was forgiven.
    """

    __slots__ = ("ejected_until", "ejections", "failures")

    def __init__(self) -> None:
        self.failures = 0
        self.ejected_until = 0.0
        self.ejections = 0

    def failed(self, now: float, consecutive: int) -> bool:
        """
        A request failed; True if these are *consecutive* failures in a row, and it should be ejected.
        """
        # What fails while it is out was sent before, or because all are out: it says nothing new.
        if now < self.ejected_until:
            return False
        self.failures += 1
        return self.failures >= consecutive

    def eject(self, now: float, base_s: float, most_s: float) -> None:
        """
        Leave it out for *base_s* times how often that happened, at most *most_s*.
        """
        forgiven = int((now - self.ejected_until) / base_s)
        self.ejections = max(0, self.ejections - forgiven) + 1
        self.failures = 0
        self.ejected_until = now + min(most_s, base_s * self.ejections)

    def readmit(self, now: float) -> None:
        """
        Use the target again at once: an active check passed, or support said so.
        """
        self.failures = 0
        self.ejected_until = min(self.ejected_until, now)
