"""Results on disk: JSON and arrays, whole or not at all, so that a killed evaluation leaves nothing half written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path

import numpy as np

FOLDER = "evaluation"  #: inside ``--work``


def write_json(path: Path, result: object) -> Path:
    """Write a result, a dataclass or plain values; returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = asdict(result) if is_dataclass(result) and not isinstance(result, type) else result
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(plain, indent=2, default=_plain) + "\n")
    os.replace(temporary, path)
    return path


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a compressed npz without pickles."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".new")
    with open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
    os.replace(temporary, path)


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} does not belong in a result: turn it into plain values first")
