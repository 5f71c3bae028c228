"""JSON and arrays on disk, whole or not at all."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prophy.files import replacing, write_text

# What holds no further object or list. A text with a bracket in it only keeps its lines; none has a line break.
_INNERMOST = re.compile(r"[\[{]\n[^\[\]{}]*[\]}]")
_LINE_BREAK = re.compile(r"\n *")


def write_json(path: Path, document: object) -> Path:
    """Write a dataclass or plain values; NaN becomes null. Returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, as_json(document))
    return path


def as_json(document: object) -> str:
    """A dataclass or plain values as the text of a file, an interval or a row of numbers a line; NaN becomes null.

    Raises:
        TypeError: a value that JSON has no place for.
    """
    text = json.dumps(_plain(document), indent=1, allow_nan=False) + "\n"
    return _INNERMOST.sub(lambda found: _LINE_BREAK.sub(" ", found[0]), text)


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write a compressed npz of numpy arrays, without pickles."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, shared=True) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"{type(value).__name__} does not belong in a result: turn it into plain values first")
