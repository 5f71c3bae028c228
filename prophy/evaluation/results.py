"""Results on disk: JSON and arrays, whole or not at all, so that a killed evaluation leaves nothing half written."""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from prophy.files import replacing, write_text

FOLDER = "evaluation"  #: inside ``--work``

#: The command line that is running, as a person would type it; None outside the command line.
running_command: ContextVar[str | None] = ContextVar("running_command", default=None)


def as_typed(program: str, arguments: Sequence[str]) -> str:
    """A command line to record; of an absolute path, which names this machine, only the last part."""
    return shlex.join([*program.split(), *(re.sub(r"(^|=)[/~]\S*/", r"\1", argument) for argument in arguments)])


def write_json(path: Path, result: object) -> Path:
    """Write a result, a dataclass or plain values; NaN becomes null. Returns the path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_plain(result), indent=2, allow_nan=False)
    write_text(path, text + "\n")
    return path


def write_result(path: Path, result: object) -> Path:
    """As :func:`write_json`, with the command that is running and the release: what a report must be able to say."""
    document = _plain(result)
    if not isinstance(document, dict):
        raise TypeError(f"a result is an object by name, not a {type(document).__name__}")
    return write_json(path, {"made_by": {"command": running_command.get(), "release": version("prophy")}, **document})


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a compressed npz without pickles."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, open(temporary, "wb") as file:
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
