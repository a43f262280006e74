"""
``gateway ctl VERB``: the console's verbs, asked over the admin port.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.console.text import lines, plain
from gateway.console.told import Told

__all__ = ["CannotAsk", "add_arguments", "run"]

KEY: Final = "GATEWAY_ADMIN_KEY"
URL: Final = "http://127.0.0.1:9100"
TIMEOUT_S: Final = 30.0
MOST_BYTES: Final = 16 * 1024 * 1024


class CannotAsk(Exception):
    """
    There is no answer, or it says no; the text is one line for the user.
    """


class _Problem(msgspec.Struct):
    title: str = ""
    detail: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    Say what ``gateway ctl`` takes.
    """
    parser.add_argument("verb", metavar="VERB", help="what to ask; help lists all")
    parser.add_argument("arguments", metavar="ARGUMENT", nargs="*", help="the verb's")
    parser.add_argument("--json", action="store_true", help="data instead of text, one JSON object a line")
    parser.add_argument("--url", default=URL, help=f"the admin port ({URL})")
    parser.add_argument("--key-file", type=Path, metavar="FILE", help=f"holds the key; else the environment: {KEY}")
    parser.add_argument("--once", action="store_true", help="only the first page, or the first look")


def run(options: argparse.Namespace) -> None:
    """
    Ask, and print the answers until there are no more.

    Raises:
        CannotAsk: with what was answered instead.
    """
    try:
        key = options.key_file.read_text().strip() if options.key_file is not None else os.environ.get(KEY, "")
    except OSError as error:
        raise CannotAsk(f"{options.key_file}: {(error.strerror or str(error)).lower()}") from error
    after, on = "", False
    while True:
        answer = _asked(options, key, after)
        told = msgspec.json.decode(answer, type=Told)
        text = answer.decode() if options.json else "\n".join(lines(told, on=on))
        on = on or bool(told.tables)
        if text:
            print(text)  # noqa: T201  # its purpose
            sys.stdout.flush()
        after = told.next
        if not after or options.once:
            return
        try:
            time.sleep(told.again_s)
        except KeyboardInterrupt:
            return


def _asked(options: argparse.Namespace, key: str, after: str) -> bytes:
    body = msgspec.json.encode({"verb": options.verb, "args": options.arguments, "next": after})
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    try:
        request = urllib.request.Request(f"{options.url.rstrip('/')}/ctl", body, headers)  # noqa: S310  # the user's own
        with _opener.open(request, timeout=TIMEOUT_S) as response:
            data: bytes = response.read(MOST_BYTES)
            return data
    except urllib.error.HTTPError as error:
        raise CannotAsk(_why(error)) from error
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason: Any = getattr(error, "reason", error)
        raise CannotAsk(f"{options.url}: {getattr(reason, 'strerror', None) or reason}") from error


# Not through a proxy of the environment: the key is for this port alone.
_opener: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _why(error: urllib.error.HTTPError) -> str:
    try:
        problem = msgspec.json.decode(error.read(64 * 1024), type=_Problem)
    except (msgspec.DecodeError, OSError):
        return f"status {error.code}"
    return plain(problem.detail or problem.title)
