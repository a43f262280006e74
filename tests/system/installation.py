"""
An installation as an operator has it: the wheel, in a virtual environment, far from the checkout.

Made once for all workers of a test run, by the same script and from the same files as the image.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.system.dockerfile import Instruction, read_dockerfile

__all__ = ["ROOT", "Installation", "clone", "install"]

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD_S = 400


@dataclass(frozen=True, slots=True)
class Installation:
    """
    Attributes:
        home: The virtual environment.
        source: What the build saw, and nothing else.
    """

    home: Path
    source: Path

    def program(self, name: str) -> str:
        """Return the path of a program that was installed."""
        return str(self.home / "bin" / name)

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        return next((self.home / "lib").glob("python3*/site-packages"))


def clone(installed: Installation, home: Path) -> Installation:
    """
    Return the same installation at *home*, for a test that changes it: hard links, so replace files, never write.
    """
    shutil.copytree(installed.home, home, symlinks=True, copy_function=os.link)
    return Installation(home, installed.source)


def install(shared: Path) -> Installation:
    """
    Execute the build stage of the Dockerfile below *shared*, if no other worker has.
    """
    base = shared / "installation"
    base.mkdir(exist_ok=True)
    made = Installation(base / "opt" / "gateway", base / "src")
    with (base / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (base / "done").exists():
            for left in (base / "opt", base / "src"):
                shutil.rmtree(left, ignore_errors=True)
            (base / "opt").mkdir()
            for instruction in read_dockerfile(ROOT / "Dockerfile").build:
                _execute(instruction, base)
            (base / "done").touch()
    return made


def _execute(instruction: Instruction, base: Path) -> None:
    if instruction.name == "COPY":
        *sources, target = instruction.words
        place = base / target.lstrip("/")
        for source in sources:
            _copy(ROOT / source, place / Path(source).name if target.endswith("/") else place)
    elif instruction.name == "RUN":
        # The only difference to the image: / is another folder.
        command = [str(base / word.lstrip("/")) if word.startswith("/") else word for word in instruction.words]
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        ended = subprocess.run(
            command,
            cwd=base,
            env=environ | {"PYTHON": sys.executable},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BUILD_S,
            check=False,
        )
        assert ended.returncode == 0, f"{command}:\n{ended.stdout}{ended.stderr}"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        shutil.copy2(source, target)
        return
    # As .dockerignore has it: what was generated in the checkout is generated anew.
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", "dropin.cache", "*_pb2*")
    shutil.copytree(source, target, ignore=ignored)
