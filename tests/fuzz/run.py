"""
``python -m tests.fuzz.run --minutes 60``: each target under atheris, led by what code it reaches.

Inputs that reach something new are kept in ``.run/fuzz``, where the next run goes on. One that fails is written
there, too, and named: it belongs into ``tests/fuzz/corpus`` with the fix. The exit code is 1 if there was one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
LEAST_S = 5
MOST_BYTES = 4096
HANGS_S = 5

ONE = """
import sys
import atheris
with atheris.instrument_imports(include=["gateway"]):
    from tests.fuzz.targets import TARGETS
TARGETS[sys.argv[1]](b"")
atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]])
atheris.Fuzz()
"""


def run(name: str, seconds: int, folder: Path) -> bool:
    """
    Fuzz one target; return whether it held.
    """
    grown, faults = folder / name, folder / "faults" / name
    grown.mkdir(parents=True, exist_ok=True)
    faults.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", f"-max_len={MOST_BYTES}", f"-timeout={HANGS_S}"]
    options += ["-rss_limit_mb=2048", "-print_final_stats=1", f"-artifact_prefix={faults}/"]
    done = subprocess.run(
        [sys.executable, "-c", ONE, name, *options, str(grown), str(CORPUS / name)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    told = done.stdout + done.stderr
    runs = next((line.split()[-1] for line in told.splitlines() if "number_of_executed_units" in line), "?")
    print(f"{name:18} {seconds:5} s {runs:>10} inputs  {'held' if done.returncode == 0 else 'FAILED'}", flush=True)
    if done.returncode:
        print("\n".join(told.splitlines()[-60:]))
    return done.returncode == 0


def main() -> None:
    """Fuzz all targets one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--folder", type=Path, default=Path(".run/fuzz"))
    given = parser.parse_args()
    names = [given.only] if given.only else sorted(path.name for path in CORPUS.iterdir())
    each = max(LEAST_S, int(given.minutes * 60 / len(names)))
    held = [run(name, each, given.folder) for name in names]
    sys.exit(not all(held))


if __name__ == "__main__":
    main()
