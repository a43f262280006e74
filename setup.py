"""
Builds what a wheel needs beside the sources: Protobuf modules, and the plugin of twistd.

Everything else about the package stands in ``pyproject.toml``.
"""

import os
import re
import tempfile
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
PROTOS = ROOT / "protos"
SOURCE = ROOT / "src"
HOMES = {"demo": ROOT / "demo"}
"""Where the modules of ``protos/NAME`` go, if not into the package."""
PACKAGE = SOURCE / "gateway" / "protos"
INIT = b'"""\nGenerated from ``protos/``.\n"""\n'


def protoc(sources: list[Path], *wanted: str) -> None:
    """
    Run the compiler on *sources*, named from ``protos/``.
    """
    # Only there while building.
    import google.api.annotations_pb2 as annotations  # noqa: PLC0415
    from grpc_tools import protoc as compiler  # noqa: PLC0415

    roots = (PROTOS, Path(compiler.__file__).parent / "_proto", Path(annotations.__file__).parents[2])
    if compiler.main(["protoc", *(f"-I{root}" for root in roots), *wanted, *map(str, sources)]):
        raise SystemExit("protoc failed; see above")


def compile_protos() -> dict[Path, bytes]:
    """
    Compile all of ``protos/``; return every file that there should be, with what it holds.

    ``protos/gateway/v1`` becomes ``gateway.protos.gateway.v1``, so that the gateway claims no other
    top-level name when it is installed; ``protos/demo/game/v1`` becomes ``demo.game.v1``, and
    ``demo/game.binpb``, the descriptor set by which the gateway knows that backend.
    """
    sources = [path.relative_to(PROTOS) for path in sorted(PROTOS.rglob("*.proto"))]
    # A wheel is built without the demo.
    sources = [path for path in sources if path.parts[0] not in HOMES or HOMES[path.parts[0]].is_dir()]
    if not sources:
        return {}
    inside = "|".join(sorted({re.escape(path.parts[0]) for path in sources if path.parts[0] not in HOMES}))
    ours = re.compile(rf"^(from|import) (?=(?:{inside})\.)", re.MULTILINE)
    files: dict[Path, bytes] = {}
    with tempfile.TemporaryDirectory() as scratch:
        protoc(sources, *(f"--{kind}_out={scratch}" for kind in ("python", "pyi", "grpc_python")))
        for made in Path(scratch).rglob("*.py*"):
            name = made.relative_to(scratch)
            home = HOMES.get(name.parts[0], PACKAGE / name.parts[0])
            path = home.joinpath(*name.parts[1:])
            text = made.read_text(encoding="utf-8")
            files[path] = (ours.sub(r"\1 gateway.protos.", text) if inside else text).encode()
            for folder in (home, *(parent for parent in path.parents if home in parent.parents)):
                if not (folder / "__init__.py").exists():
                    files[folder / "__init__.py"] = INIT
        for name in {source.parts[1] for source in sources if source.parts[0] == "demo"}:
            described = Path(scratch) / f"{name}.binpb"
            of_it = [source for source in sources if source.parts[:2] == ("demo", name)]
            protoc(of_it, "--include_imports", f"--descriptor_set_out={described}")
            files[HOMES["demo"] / described.name] = described.read_bytes()
    return files


def put(files: dict[Path, bytes]) -> None:
    """
    Write *files*, and remove modules of the package whose protos are gone.

    What is as it should be is not touched: an interpreter that imports it meanwhile never finds half a file.
    """
    made = {path for ending in ("py", "pyi") for path in PACKAGE.rglob(f"*_pb2*.{ending}")}
    for stale in made - files.keys():
        stale.unlink()
    for path, content in files.items():
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.{os.getpid()}")
            part.write_bytes(content)
            part.replace(path)


put(compile_protos())

setup(
    package_dir={"": "src", "twisted.plugins": "twisted/plugins"},
    # The folder of twistd's plugins has no __init__: it is a part of Twisted's own package.
    packages=[
        *sorted(".".join(path.parent.relative_to(SOURCE).parts) for path in (SOURCE / "gateway").rglob("__init__.py")),
        "twisted.plugins",
    ],
    package_data={"gateway": ["py.typed"], "gateway.redis.scripts": ["*.lua"], "gateway.web": ["live/*"]},
    include_package_data=False,
)
