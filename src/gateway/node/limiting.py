"""
All that limits an instance, in one place: rates, openings, and what is refused when it is late.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from gateway.config.limit_sections import Limits
from gateway.node.admission import Admission
from gateway.node.plan import Filter
from gateway.node.pressure import Pressure
from gateway.node.rate_filters import Arrival, Doors, Known
from gateway.node.rate_limits import RateLimits
from gateway.telemetry.metrics import Metrics

__all__ = ["Limiting"]


class Limiting:
    """
    The limits of requests. Only those filters are made that have something to do.

    Args:
        rates: Policies and budgets, which real-time clients share.
    """

    def __init__(self, rates: RateLimits, clock: IReactorTime, metrics: Metrics) -> None:
        self.rates = rates
        self.admission = Admission(clock.seconds)
        self.pressure = Pressure(clock)
        self._limits = Limits()
        metrics.limit_keys.from_source(lambda: [((), float(rates.keys))])
        metrics.limit_keys_forgotten.from_source(lambda: [((), float(rates.keys_forgotten))])
        metrics.openings_refused.from_source(lambda: [((), float(self.admission.refused))])
        metrics.shed.from_source(lambda: [((), float(self.pressure.shed))])
        metrics.shed_share.from_source(lambda: [((), self.pressure.share)])

    def configure(self, limits: Limits) -> None:
        """
        Take other limits; *rates* is told by the node.
        """
        self._limits = limits
        self.admission.configure(limits.openings)
        self.pressure.configure(limits.shed_lag_s)

    def arrival(self) -> tuple[Filter, ...]:
        """
        What stands before the route is looked for.
        """
        rates = self.rates
        return (Arrival(rates),) if rates.arrival or rates.failures else ()

    def doors(self) -> tuple[Filter, ...]:
        """
        What stands before credentials are looked at.
        """
        admission = self.admission if self._limits.openings is not None else None
        pressure = self.pressure if self._limits.shed_lag_s else None
        if admission is None and pressure is None and not self.rates.connects_by_address:
            return ()
        return (Doors(self.rates, admission, pressure),)

    def known(self) -> tuple[Filter, ...]:
        """
        What stands behind credentials.
        """
        return (Known(self.rates),) if self.rates.known else ()
