"""What ``tests/fuzz.py`` throws, and at what: seeded mutations of bytes and of JSON documents."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ODD = [None, True, False, 0, -1, 1.5, 10**30, -(10**30), 1e308, float("nan"), "", "x", "é\0", "1", "../../etc/passwd"]
ODD += [[], [[]], {}, {"a": 1}, [1, "x", None], "<b>", "a" * 5000, [[[[[[[[[[[[1]]]]]]]]]]]]]


class Fault(Exception):
    """Something that must not happen."""


class Target(NamedTuple):
    """What is thrown at.

    Attributes:
        name: for the report.
        throw: makes one input from a generator of random numbers, and lets it be read.
        documented: exceptions that a refusal may be.
    """

    name: str
    throw: Callable[[random.Random], None]
    documented: tuple[type[Exception], ...] = (ValueError, OSError)


# --- mutations --------------------------------------------------------------------------------------------------------


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut, repeated, zeroed, or put where there were none."""
    raw = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(raw) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(raw):
            raw[at] = rng.randrange(256)
        elif kind == 1:
            del raw[at:]
        elif kind == 2:
            del raw[at : at + rng.randrange(64)]
        elif kind == 3:
            raw[at:at] = raw[at : at + rng.randrange(64)]
        elif kind == 4:
            raw[at : at + 8] = rng.choice((b"\xff" * 8, b"\0" * 8, rng.randbytes(8)))
        else:
            raw[at:at] = rng.randbytes(rng.randrange(32))
    return bytes(raw)


def changed(document: object, rng: random.Random) -> object:
    """A JSON document with one value, key or element replaced, dropped or doubled."""
    if isinstance(document, dict) and document and rng.random() < 0.85:
        key = rng.choice(list(document))
        rest = {name: value for name, value in document.items() if name != key}
        kind = rng.random()
        if kind < 0.1:
            return rest
        if kind < 0.15:
            return {**document, "odd": rng.choice(ODD)}
        return {**document, key: changed(document[key], rng)}
    if isinstance(document, list) and document and rng.random() < 0.7:
        at = rng.randrange(len(document))
        kind = rng.random()
        if kind < 0.1:
            return document[:at] + document[at + 1 :]
        if kind < 0.2:
            return document * rng.choice((2, 100))
        return [*document[:at], changed(document[at], rng), *document[at + 1 :]]
    return rng.choice(ODD)


def write_changed(path: Path, rng: random.Random) -> None:
    """Damage a file: as JSON where it is JSON or begins with it, or byte by byte."""
    data = path.read_bytes()
    if path.suffix == ".json" and rng.random() < 0.8:
        path.write_text(json.dumps(changed(json.loads(data), rng)))
    elif path.suffix == ".jsonl" and rng.random() < 0.8:
        lines = data.decode().splitlines()
        at = rng.randrange(len(lines))
        lines[at] = json.dumps(changed(json.loads(lines[at]), rng))
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix == ".safetensors" and rng.random() < 0.6:
        length = int.from_bytes(data[:8], "little")
        header = json.dumps(changed(json.loads(data[8 : 8 + length]), rng)).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    elif path.suffix == ".json" and rng.random() < 0.1:
        path.write_text("[" * rng.choice((10, 10_000, 1_000_000)))
    else:
        path.write_bytes(damaged(data, rng))


def of_files(name: str, valid: Path, pattern: str, read: Callable[[Path], object]) -> Target:
    """A target that reads a folder or a file of which one file is changed."""
    here = valid.with_name(f"{valid.name}-changed{valid.suffix}")

    def throw(rng: random.Random) -> None:
        shutil.rmtree(here, ignore_errors=True)
        here.unlink(missing_ok=True)
        (shutil.copytree if valid.is_dir() else shutil.copy)(valid, here)
        files = sorted(path for path in here.rglob(pattern) if path.is_file()) if here.is_dir() else [here]
        write_changed(rng.choice(files), rng)
        read(here)

    return Target(name, throw)
