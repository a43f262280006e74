"""
Compiles the demo's protos into ``demo/generated``: modules, and the descriptor set that the gateway reads.

The gateway itself needs no generated code for a backend; only the backend does.
"""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["compile_protos"]

ROOT = Path(__file__).resolve().parent.parent
GENERATED = ROOT / "demo" / "generated"
SOURCES = ("demo/game/v1/game.proto",)


def compile_protos() -> Path:
    """
    Compile what has changed; return the folder.
    """
    newest = max((ROOT / "protos" / source).stat().st_mtime for source in SOURCES)
    done = GENERATED / "game.binpb"
    if not done.exists() or done.stat().st_mtime < newest:
        _compile()
    if str(GENERATED) not in sys.path:
        sys.path.insert(0, str(GENERATED))
    return GENERATED


def _compile() -> None:
    import google.api  # where annotations.proto lies
    from grpc_tools import protoc

    GENERATED.mkdir(exist_ok=True)
    common = Path(next(iter(google.api.__path__))).parent.parent
    bundled = Path(protoc.__file__).parent / "_proto"
    arguments = [
        "protoc",
        f"-I{ROOT / 'protos'}",
        f"-I{common}",
        f"-I{bundled}",
        f"--python_out={GENERATED}",
        f"--grpc_python_out={GENERATED}",
        "--include_imports",
        f"--descriptor_set_out={GENERATED / 'game.binpb'}",
        *SOURCES,
    ]
    if protoc.main(arguments):
        raise SystemExit("protoc failed; see above")
    # The modules live below a folder of their own name; it must not be taken for this package.
    for module in (GENERATED / "demo" / "game" / "v1").glob("*.py"):
        text = (
            module.read_text()
            .replace("from demo.game.v1 import", "import")
            .replace("import game_pb2 as demo_dot_game", "import game_pb2 as demo_dot_game")
        )
        (GENERATED / module.name).write_text(text)


if __name__ == "__main__":
    print(compile_protos())
