"""
Builds what a wheel needs beside the sources: Protobuf modules, and the plugin of twistd.

Everything else about the package stands in ``pyproject.toml``.
"""

from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
PROTOS = ROOT / "protos"


def compile_protos(destination: Path) -> None:
    """
    Compile ``protos/`` but the demo's into modules of ``gateway.protos`` below *destination* (a ``src`` folder).

    The modules import each other by the path of their proto file; that path is made to lie
    inside the package, so that installing the gateway claims no other top-level name.
    """
    from grpc_tools import protoc  # noqa: PLC0415  # only there while building

    sources = sorted(path for path in PROTOS.rglob("*.proto") if "demo" not in path.relative_to(PROTOS).parts)
    if not sources:
        return
    package = destination / "gateway" / "protos"
    package.mkdir(parents=True, exist_ok=True)
    arguments = ["protoc", f"-I{PROTOS}", f"--python_out={package}", f"--pyi_out={package}", f"--grpc_python_out={package}"]
    if protoc.main([*arguments, *(str(path.relative_to(PROTOS)) for path in sources)]):
        raise SystemExit("protoc failed; see above")
    for module in (*package.rglob("*_pb2.py"), *package.rglob("*_pb2.pyi"), *package.rglob("*_pb2_grpc.py")):
        text = module.read_text()
        for top in sorted({path.relative_to(PROTOS).parts[0] for path in sources}):
            text = text.replace(f"from {top}.", f"from gateway.protos.{top}.").replace(
                f"import {top}.", f"import gateway.protos.{top}."
            )
        module.write_text(text)
    for folder in {path.relative_to(PROTOS).parent for path in sources}:
        for part in (folder, *folder.parents):
            init = package / part / "__init__.py"
            if not init.exists():
                init.write_text('"""\nGenerated from ``protos/``.\n"""\n')


compile_protos(ROOT / "src")

setup(
    package_dir={"": "src", "twisted.plugins": "twisted/plugins"},
    packages=[
        *sorted(
            ".".join(path.parent.relative_to(ROOT / "src").parts)
            for path in (ROOT / "src" / "gateway").rglob("__init__.py")
        ),
        "twisted.plugins",
    ],
    package_data={"gateway": ["py.typed"]},
    include_package_data=False,
)
