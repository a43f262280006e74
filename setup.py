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
INIT = '"""\nGenerated from ``protos/``.\n"""\n'


def compile_protos() -> dict[Path, str]:
    """
    Compile all of ``protos/``; return every module that there should be, with its text.

    ``protos/gateway/v1`` becomes ``gateway.protos.gateway.v1``, so that the gateway claims no other
    top-level name when it is installed; ``protos/demo/game/v1`` becomes ``demo.game.v1``.
    """
    sources = [path.relative_to(PROTOS) for path in sorted(PROTOS.rglob("*.proto"))]
    if not sources:
        return {}
    # Only there while building.
    import google.api.annotations_pb2 as annotations  # noqa: PLC0415
    from grpc_tools import protoc  # noqa: PLC0415

    roots = (PROTOS, Path(protoc.__file__).parent / "_proto", Path(annotations.__file__).parents[2])
    inside = "|".join(sorted({re.escape(path.parts[0]) for path in sources if path.parts[0] not in HOMES}))
    ours = re.compile(rf"^(from|import) (?=(?:{inside})\.)", re.MULTILINE)
    modules: dict[Path, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        out = [f"--{kind}_out={scratch}" for kind in ("python", "pyi", "grpc_python")]
        if protoc.main(["protoc", *(f"-I{root}" for root in roots), *out, *map(str, sources)]):
            raise SystemExit("protoc failed; see above")
        for made in Path(scratch).rglob("*.py*"):
            name = made.relative_to(scratch)
            home = HOMES.get(name.parts[0], PACKAGE / name.parts[0])
            path = home.joinpath(*name.parts[1:])
            text = made.read_text(encoding="utf-8")
            modules[path] = ours.sub(r"\1 gateway.protos.", text) if inside else text
            for folder in (home, *(parent for parent in path.parents if home in parent.parents)):
                if not (folder / "__init__.py").exists():
                    modules[folder / "__init__.py"] = INIT
    return modules


def put(modules: dict[Path, str]) -> None:
    """
    Write *modules*, and remove those of protos that are gone.

    What is as it should be is not touched: an interpreter that imports it meanwhile never finds half a file.
    """
    for home in (PACKAGE, *HOMES.values()):
        for stale in {*home.rglob("*_pb2.py"), *home.rglob("*_pb2.pyi"), *home.rglob("*_pb2_grpc.py")} - modules.keys():
            stale.unlink()
    for path, text in modules.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.{os.getpid()}")
            part.write_text(text, encoding="utf-8")
            part.replace(path)


put(compile_protos())

setup(
    package_dir={"": "src", "twisted.plugins": "twisted/plugins"},
    # The folder of twistd's plugins has no __init__: it is a part of Twisted's own package.
    packages=[
        *sorted(".".join(path.parent.relative_to(SOURCE).parts) for path in (SOURCE / "gateway").rglob("__init__.py")),
        "twisted.plugins",
    ],
    package_data={"gateway": ["py.typed"]},
    include_package_data=False,
)
