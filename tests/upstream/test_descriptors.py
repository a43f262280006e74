"""
Schemas of backends from descriptor sets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from tests.core.transcoding.support import compile_protos

from gateway.upstream.descriptors import SchemaError, load_schema, schema_from_files, schema_from_set


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A complete descriptor set."""
    return compile_protos(tmp_path_factory.mktemp("library"), "transcoding/library.proto")


def files_of(serialized: bytes) -> list[Any]:
    """The files of a set."""
    return list(descriptor_pb2.FileDescriptorSet.FromString(serialized).file)


def file(name: str, *dependencies: str, service: bool = False) -> bytes:
    """A file descriptor with little in it."""
    made = descriptor_pb2.FileDescriptorProto(name=name, package=name.partition(".")[0], dependency=dependencies)
    made.message_type.add(name="M")
    if service:
        made.service.add(name="S").method.add(name="Do", input_type="M", output_type="M")
    return made.SerializeToString()


def test_load_a_file(library: bytes, tmp_path: Path) -> None:
    """
    A set in a file gives its services, and classes for their messages without generated code.
    """
    path = tmp_path / "library.binpb"
    path.write_bytes(library)
    schema = load_schema(path)
    assert list(schema.services) == [
        "test.library.v1.Broken",
        "test.library.v1.Library",
        "test.library.v1.Unannotated",
    ]
    method = schema.method("test.library.v1.Library/GetBook")
    assert method.path == "/test.library.v1.Library/GetBook"
    request: Any = method.request(name="b1")
    assert method.request.FromString(request.SerializeToString()) == request
    assert method.response.DESCRIPTOR.full_name == "test.library.v1.Book"
    assert schema.method("/test.library.v1.Library/Watch").descriptor.server_streaming
    time: Any = schema.method("test.library.v1.Library/ListBooks").request().since  # type: ignore[attr-defined]
    assert time.ToJsonString() == "1970-01-01T00:00:00Z"


def test_files_in_any_order(library: bytes) -> None:
    """
    Files as reflection sends them, in any order and repeated, make the same schema.
    """
    serialized = [file.SerializeToString() for file in files_of(library)]
    schema = schema_from_files([*reversed(serialized), serialized[0]])
    assert schema.method("test.library.v1.Library/GetBook").path == "/test.library.v1.Library/GetBook"


def test_google_files_may_be_missing(tmp_path: Path) -> None:
    """
    A set made without --include_imports works when it imports nothing but Google's common files.
    """
    schema = schema_from_set(compile_protos(tmp_path, "transcoding/library.proto", imports=False))
    assert "test.library.v1.Library" in schema.services


def test_backends_do_not_share_types(library: bytes) -> None:
    """
    Two schemas of one package are apart: a reload replaces types, and backends may differ.
    """
    first, second = schema_from_set(library), schema_from_set(library)
    assert first.pool is not second.pool
    assert (
        first.method("test.library.v1.Library/GetBook").request
        is not second.method("test.library.v1.Library/GetBook").request
    )


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([b"\xff"], "this is no file descriptor"),
        ([], "there is no service"),
        ([file("a.proto")], "there is no service"),
        ([file("a.proto", "b.proto", service=True)], "a.proto imports b.proto, which is missing: make the set with"),
        ([file("a.proto", "google/api/nope.proto", service=True)], "imports google/api/nope.proto, which is missing"),
        (
            [file("a.proto", "b.proto", service=True), file("b.proto", "a.proto")],
            "a.proto imports b.proto imports a.proto",
        ),
        (
            [file(f"f{n}.proto", f"f{n + 1}.proto", service=True) for n in range(300)],
            "imports through more than 200 files",
        ),
        ([file("a.proto", service=True).replace(b"Do", b"D-")], "a.proto is not valid"),
    ],
)
def test_unusable_files(files: list[bytes], words: str) -> None:
    """
    Descriptors that are none, or not complete, are refused with what to do about it.
    """
    with pytest.raises(SchemaError, match=words):
        schema_from_files(files)


def test_unusable_file_on_disk(tmp_path: Path) -> None:
    """
    A file that is not there, or no descriptor set, is named.
    """
    with pytest.raises(SchemaError, match=r"nope\.binpb cannot be read: No such file"):
        load_schema(tmp_path / "nope.binpb")
    (tmp_path / "bad.binpb").write_bytes(b"\xff\xff")
    with pytest.raises(SchemaError, match=r"bad\.binpb: this is no descriptor set"):
        load_schema(tmp_path / "bad.binpb")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "test.library.v1.Libary/GetBook",
            "no service 'test.library.v1.Libary'; did you mean 'test.library.v1.Library'",
        ),
        ("test.library.v1.Library/GetBok", "has no method 'GetBok'; did you mean 'GetBook'"),
        ("test.library.v1.Library.GetBook", "expected package.Service/Method"),
        ("", "expected package.Service/Method"),
    ],
)
def test_unknown_names(name: str, words: str, library: bytes) -> None:
    """
    A method that does not exist is refused, with the one that was probably meant.
    """
    with pytest.raises(SchemaError, match=words):
        schema_from_set(library).method(name)
