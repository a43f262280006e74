"""
Files that the configuration names: there, and readable.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gateway.config.faults import KeyPath
from gateway.config.sections import Config
from gateway.config.shape import Group, Key, ListOf, NamedOf, Scalar, Section, Shape, section
from gateway.config.walk import Walk

__all__ = ["check", "files_of"]


def check(config: Config, walk: Walk) -> None:
    """
    Report every file that cannot be read.
    """
    for path, file in files_of(config):
        if not walk.given(path):
            continue
        if file.is_dir():
            walk.fault(path, f"{file} is a directory")
        elif not file.exists():
            walk.fault(path, f"there is no file {file}")
        elif not os.access(file, os.R_OK):
            walk.fault(path, f"{file} cannot be read by this user")


def files_of(config: Config) -> Iterator[tuple[KeyPath, Path]]:
    """
    List every file of *config* with its key.
    """
    return _files(section(Config), config, ())


def _files(shape: Shape, value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Path]]:
    if value is None:
        return
    if isinstance(shape, Section):
        yield from _keys(shape, value, path)
    elif isinstance(shape, NamedOf):
        for item in value:
            yield from _keys(shape.item, item, (*path, getattr(item, shape.name_field)))
    elif isinstance(shape, ListOf):
        for index, item in enumerate(value):
            yield from _files(shape.item, item, (*path, index))
    elif isinstance(shape, Scalar) and shape.kind == "file":
        yield path, value


def _keys(shape: Section | Group, value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Path]]:
    for name, key in shape.keys.items():
        if isinstance(key, Key):
            yield from _files(key.shape, getattr(value, key.field), (*path, name))
        else:
            yield from _keys(key, value, (*path, name))
