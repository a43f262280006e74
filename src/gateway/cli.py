"""
The command ``gateway``: what can be asked of a configuration without serving it, and of a gateway that runs.

Exit codes: 0 as asked; 1 the configuration has faults, or the answer is no; 2 the command line is wrong.
Answers go to stdout, complaints to stderr, one line each, never a traceback.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import time
from collections.abc import Sequence
from getpass import getpass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NoReturn

from gateway.config.checks.routes import REQUEST_ROOTS
from gateway.config.explain import Explanation, explain, route_rows, target_of
from gateway.config.load import Config, ConfigErrors, load
from gateway.config.schema import json_schema
from gateway.config.sections import Issuer
from gateway.config.units import format_duration, parse_duration
from gateway.core.path import canonical
from gateway.core.problems import Problem
from gateway.ctl import CannotAsk
from gateway.ctl import add_arguments as add_ctl_arguments
from gateway.ctl import run as ask

__all__ = ["main"]

DISTRIBUTION = "twistd-gateway"
SHORTEST_PASSWORD = 12

_EPILOG = """\
To serve a configuration: twistd -n gateway --config FILE

exit codes: 0 as asked; 1 faults found, or the answer is no; 2 wrong usage
"""


class _No(Exception):
    """The command cannot do as asked; its text is one line for the user."""


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command.

    Args:
        arguments: Without the program's name; None takes the process's.

    Returns:
        The exit code.

    Raises:
        SystemExit: for ``--help`` (0) and wrong usage (2).
    """
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        sys.stdout.flush()
    except ConfigErrors as errors:
        print(errors, file=sys.stderr)
        return 1
    except _No as no:
        print(f"gateway {options.command}: {no}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read has seen enough (head); what is still buffered must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _check(options: argparse.Namespace) -> int:
    config = _load(options)
    if any(upstream.grpc for upstream in config.upstream):
        faults = _offline().faults_of(config, REQUEST_ROOTS)
        if faults:
            print("\n".join(f"{options.file}: {fault}" for fault in faults), file=sys.stderr)
            return 1
    counts = [(len(config.route), "route"), (len(config.upstream), "upstream"), (len(config.auth.issuer), "issuer")]
    told = ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts)
    print(f"{options.file}: no faults; {told}")
    return 0


def _offline() -> Any:
    """The room that reads descriptors; protobuf is loaded only where it is needed."""
    from gateway.upstream import offline  # noqa: PLC0415

    return offline


def _openapi(options: argparse.Namespace) -> int:
    from gateway.core.transcoding.openapi import openapi  # noqa: PLC0415

    config = _load(options)
    offline = _offline()
    try:
        mounts, asked = offline.offline_mounts(config, REQUEST_ROOTS)
    except ValueError as error:
        raise _No(str(error)) from error
    for name in asked:
        print(f"gateway openapi: upstream {name!r} tells its descriptors itself: left out", file=sys.stderr)
    document = openapi(offline.operations_of(mounts), title=config.server, version=config.digest)
    print(json.dumps(document, indent=2))
    return 0


def _explain(options: argparse.Namespace) -> int:
    config = _load(options)
    told = explain(config, options.method, options.url)
    if any(upstream.grpc for upstream in config.upstream):
        _explain_call(options, config, told)
    width = max(len(about) for about, _ in told.lines)
    before = ""
    for about, text in told.lines:
        print(f"{about if about != before else '':{width}}  {text}")
        before = about
    return 0 if told.served else 1


def _explain_call(options: argparse.Namespace, config: Config, told: Explanation) -> None:
    """Add the call that the request becomes, as far as files can tell."""
    offline = _offline()
    try:
        mounts, _ = offline.offline_mounts(config, REQUEST_ROOTS)
        target = canonical(target_of(options.url))
    except (ValueError, Problem):
        return
    lines = offline.explain_call(mounts, options.method, target, options.body.encode(), dict(options.claim))
    if lines and not told.served:
        told.lines = [line for line in told.lines if line[0] in ("path", "variable")]
        told.served = not any(about == "refused" for about, _ in lines)
    told.lines += lines


def _routes(options: argparse.Namespace) -> int:
    rows = [("METHODS", "PATH", "AUTH", "LEADS TO", "RULE"), *route_rows(_load(options))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _token(options: argparse.Namespace) -> int:
    issuer = _signing_issuer(_load(options), options.issuer)
    ttl_s = options.ttl
    if issuer.max_lifetime_s is not None and ttl_s > issuer.max_lifetime_s:
        raise _No(
            f"--ttl {format_duration(ttl_s)} is more than the issuer's max_lifetime, "
            f"{format_duration(issuer.max_lifetime_s)}: the token would be refused"
        )
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": issuer.issuer,
        "aud": issuer.audience[0],
        "sub": options.sub,
        "iat": now,
        "exp": now + max(1, round(ttl_s)),
        "jti": secrets.token_hex(8),
        **dict(options.claim),
    }
    headers = {"typ": issuer.type or "JWT"}
    if options.kid is not None:
        headers["kid"] = options.kid
    print(_signed(issuer, claims, headers))
    return 0


def _ctl(options: argparse.Namespace) -> int:
    try:
        ask(options)
    except CannotAsk as cannot:
        raise _No(str(cannot)) from cannot
    return 0


def _console_password(_: argparse.Namespace) -> int:
    from gateway.core.passwords import SALT_BYTES, hashed  # noqa: PLC0415

    if sys.stdin.isatty():
        password = getpass("Password: ")
        if getpass("Again: ") != password:
            raise _No("they differ")
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if len(password) < SHORTEST_PASSWORD:
        raise _No(f"a password has at least {SHORTEST_PASSWORD} signs")
    print(hashed(password, secrets.token_bytes(SALT_BYTES)))
    return 0


def _schema(_: argparse.Namespace) -> int:
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    return 0


def _version(_: argparse.Namespace) -> int:
    try:
        print(version(DISTRIBUTION))
    except PackageNotFoundError:
        print("not installed (running from a checkout)")
    return 0


def _load(options: argparse.Namespace) -> Config:
    return load(Path(options.file), os.environ)


def _signing_issuer(config: Config, name: str | None) -> Issuer:
    able = [each for each in config.auth.issuer if each.secret is not None or each.private_key_file is not None]
    if name is not None:
        named = [each for each in config.auth.issuer if each.issuer == name]
        if not named:
            known = ", ".join(each.issuer for each in config.auth.issuer) or "none"
            raise _No(f"there is no issuer {name}; configured: {known}")
        able = [each for each in able if each in named]
    if not able:
        which = name or "no issuer"
        verb = "has no" if name else "has a"
        raise _No(f"{which} {verb} secret or private_key_file in this configuration, so nothing can be signed here")
    if len(able) > 1:
        raise _No(f"several issuers can sign; choose one with --issuer: {', '.join(each.issuer for each in able)}")
    return able[0]


def _signed(issuer: Issuer, claims: dict[str, Any], headers: dict[str, str]) -> str:
    import jwt  # Here, because it takes longer to import than the other commands to run.

    key: str | bytes
    if issuer.secret is not None:
        key = issuer.secret.reveal()
    else:
        assert issuer.private_key_file is not None
        try:
            key = issuer.private_key_file.read_bytes()
        except OSError as error:
            raise _No(f"{issuer.private_key_file}: {(error.strerror or str(error)).lower()}") from error
    try:
        return jwt.encode(claims, key, algorithm=issuer.algorithms[0], headers=headers)
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        key_name = issuer.private_key_file or "the secret"
        why = str(error).partition("\n")[0]
        raise _No(f"{key_name} cannot sign with {issuer.algorithms[0]}: {why}") from error


def _claim(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _ttl(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None


def _method(text: str) -> str:
    if not text.isascii() or not text.replace("-", "").isalnum():
        raise argparse.ArgumentTypeError(f"{text!r} is no method, such as GET")
    if text != text.upper():
        raise argparse.ArgumentTypeError(f"methods are case-sensitive; did you mean {text.upper()}?")
    return text


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and where help is; not the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="gateway",
        description="Ask about a configuration of the gateway without serving it, or ask a gateway that runs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, run: Any, summary: str, text: str = "", *, file: bool = True) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}. {text}".strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(run=run)
        if file:
            made.add_argument("file", metavar="FILE", help="the configuration, such as gateway.toml")
        return made

    command("check", _check, "tell everything that is wrong with a configuration", "Each fault is one line, file:line:column: key: what is wrong.")  # fmt: skip
    made = command(
        "explain",
        _explain,
        "tell what would become of a request: route, filters, backend, or why not",
        "Nothing is sent.\n\nexample: gateway explain gateway.toml GET /api/players/7",
    )
    made.add_argument("method", metavar="METHOD", type=_method, help="such as GET")
    made.add_argument("url", metavar="URL", help="a URL, or just its path and query")
    made.add_argument("--body", default="", metavar="JSON", help="of a request that becomes a gRPC call")
    made.add_argument(
        "--claim",
        action="append",
        default=[],
        type=_claim,
        metavar="NAME=VALUE",
        help="of the caller, for fields the gateway fills",
    )
    command("openapi", _openapi, "write OpenAPI 3.1 for the gRPC routes whose descriptors stand in files")
    command("routes", _routes, "list the routes, the most specific first")
    made = command(
        "token",
        _token,
        "print a token for development, and nothing else",
        "Signed with the secret or the private_key_file\nof an issuer in the configuration.\n\n"
        'example: curl -H "Authorization: Bearer $(gateway token gateway.toml --sub alice)" …',
    )
    made.add_argument("--sub", required=True, metavar="NAME", help="who the token is for")
    made.add_argument(
        "--claim",
        action="append",
        default=[],
        type=_claim,
        metavar="NAME=VALUE",
        help="one more claim, or another value for one; a value that is JSON is taken as such: roles='[\"admin\"]'",
    )
    made.add_argument("--ttl", type=_ttl, default=3600.0, metavar="TIME", help="how long it lasts: 30s, 5m, 1h (default)")  # fmt: skip
    made.add_argument("--issuer", metavar="ISS", help="which issuer signs, where several can")
    made.add_argument("--kid", metavar="ID", help="the key's id, where the issuer publishes several")
    made = command(
        "ctl",
        _ctl,
        "ask a running gateway, and all instances with it: who, session, channel, top, kick and more",
        "What the console's\nverbs tell, over the admin port; see docs/console.md.\n\nexample: gateway ctl who alice --json",
        file=False,
    )
    add_ctl_arguments(made)
    command(
        "console-password",
        _console_password,
        "hash a password for the console's users file",
        "It is asked for, or read from standard input.",
        file=False,
    )
    command("schema", _schema, "print the JSON Schema of the configuration, for editors", file=False)
    command("version", _version, "print the version", file=False)
    return parser


if __name__ == "__main__":
    sys.exit(main())
