"""
Which targets of an upstream are left out because they failed requests.

After Envoy's outlier detection, for few targets: five failures in a row eject a target for 30
seconds times how often that happened, never more than a share of them and never the last.
"""

from __future__ import annotations

__all__ = ["Record"]


class Record:
    """
    What is known of one target.

    Attributes:
        failures: In a row.
        ejected_until: Seconds; in the past or 0 while it is used.
        ejections: How often it was ejected lately; one is forgiven for each good request after a readmission.
    """

    __slots__ = ("ejected_until", "ejections", "failures")

    def __init__(self) -> None:
        self.failures = 0
        self.ejected_until = 0.0
        self.ejections = 0

    def succeeded(self) -> None:
        """
        A request was answered.
        """
        if self.failures:
            self.failures = 0
        elif self.ejections:
            self.ejections -= 1

    def failed(
        self,
        now: float,
        *,
        consecutive: int,
        base_s: float,
        most_s: float,
        others_out: int,
        all_targets: int,
        percent: int,
    ) -> bool:
        """
        A request failed; True if that ejects the target.

        Args:
            others_out: Targets that are left out already.
            all_targets: Targets in all.
            percent: Most targets that may be out, as a share of all; at least one, never all.
        """
        self.failures += 1
        if self.failures < consecutive or now < self.ejected_until:
            return False
        most_out = min(all_targets - 1, max(1, all_targets * percent // 100))
        if others_out >= most_out:
            return False
        self.ejections += 1
        self.failures = 0
        self.ejected_until = now + min(most_s, base_s * self.ejections)
        return True

    def readmit(self) -> None:
        """
        Use the target again at once: an active check passed, or support said so.
        """
        self.failures = 0
        self.ejected_until = 0.0
