"""
The keys of every issuer: secrets, PEM and JWK Set files read once, JWK Sets behind URLs kept fresh.
"""

from __future__ import annotations

import random as chance
from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from gateway.auth.keyset import KeySet, from_jwks, from_pem, from_secret
from gateway.auth.sources import Fetch, KeySource, RemoteSource, Report, Surroundings
from gateway.config.sections import Auth, Issuer

__all__ = ["KeyFault", "KeyRing"]


class KeyFault(ValueError):
    """
    Configured key material cannot be used; the text names the issuer, the setting and why.
    """


class KeyRing:
    """
    The keys of every issuer.

    Args:
        fetch: Gets documents.
        clock: Monotonic; drives refreshing.
        report: Told of every fetch.
        random: Evenly from 0 to 1; spreads attempts while an issuer is out of order.

    Attributes:
        sources: By the issuer's name.

    Raises:
        KeyFault: a configured file or secret cannot be used.
    """

    def __init__(
        self,
        section: Auth,
        fetch: Fetch,
        clock: IReactorTime,
        report: Report,
        random: Callable[[], float] = chance.random,
    ) -> None:
        self._surroundings = Surroundings(fetch, clock, report, random)
        self._started = False
        self.sources: dict[str, KeySource] = {}
        self.prepare(section)()

    def watch(self, changed: Callable[[str], None]) -> None:
        """
        Name who is told, with the issuer's name, when keys that verified its tokens are gone.
        """
        self._surroundings.changed = changed

    def prepare(self, section: Auth) -> Callable[[], None]:
        """
        Read the local keys of another configuration.

        Returns:
            The change-over to it, which cannot fail. Sets behind the same URL stay as they are.

        Raises:
            KeyFault: a configured file or secret cannot be used; nothing has changed.
        """
        sources: dict[str, KeySource] = {}
        for issuer in section.issuer:
            known = self.sources.get(issuer.issuer)
            if issuer.jwks_url is None:
                sources[issuer.issuer] = KeySource(issuer, _local(issuer))
            elif isinstance(known, RemoteSource) and known.serves(issuer):
                sources[issuer.issuer] = known
            else:
                sources[issuer.issuer] = RemoteSource(issuer, issuer.jwks_url, self._surroundings)

        def change() -> None:
            before, self.sources = self.sources, sources
            for issuer in section.issuer:
                sources[issuer.issuer].issuer = issuer
            for name, source in before.items():
                after = sources.get(name)
                if after is source:
                    continue
                if isinstance(source, RemoteSource):
                    source.stop()
                if source.keys is not None and not (after and after.keys and after.keys.holds(source.keys)):
                    self._surroundings.changed(name)
            if self._started:
                self._refresh(before)

        return change

    def start(self) -> None:
        """
        Begin fetching, and keep refreshing until stopped.
        """
        self._started = True
        self._refresh({})

    async def stop(self) -> None:
        """
        End every fetch and timer; whoever waits for keys is told that there are none.
        """
        self._started = False
        for source in self.sources.values():
            if isinstance(source, RemoteSource):
                source.stop()

    def ready(self) -> bool:
        """Whether every issuer has keys."""
        return all(source.keys is not None for source in self.sources.values())

    def ages(self) -> list[tuple[str, float]]:
        """List each issuer and the seconds since its keys were confirmed; infinite without keys."""
        return [(name, source.age_s()) for name, source in self.sources.items()]

    def _refresh(self, known: dict[str, KeySource]) -> None:
        for name, source in self.sources.items():
            if isinstance(source, RemoteSource) and known.get(name) is not source:
                source.refresh()


def _local(issuer: Issuer) -> KeySet:
    setting = "secret"
    try:
        if issuer.secret is not None:
            return from_secret(issuer.secret.reveal(), issuer.algorithms)
        if issuer.public_key_file is not None:
            setting = f"public_key_file {issuer.public_key_file}"
            return from_pem(issuer.public_key_file.read_bytes(), issuer.algorithms)
        if issuer.jwks_file is not None:
            setting = f"jwks_file {issuer.jwks_file}"
            return from_jwks(issuer.jwks_file.read_bytes(), issuer.algorithms)
    except OSError as exc:
        raise KeyFault(f"issuer {issuer.issuer!r}: {setting}: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise KeyFault(f"issuer {issuer.issuer!r}: {setting}: {exc}") from exc
    raise KeyFault(f"issuer {issuer.issuer!r}: it has no key")
