"""Types and ranges of fields: checked where a dataclass is built, and where JSON becomes one (no torch)."""

from __future__ import annotations

import json
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from prophy.files import read_regular

T = TypeVar("T")

MOST_BYTES = 2**26  #: of a file of JSON

#: ``__pydantic_config__`` of a dataclass that is read from JSON, and so of the dataclasses in its fields.
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

# Every number has an upper bound, far above what is of use: a value with too many digits is a slip, not a wish.
AtLeastOne = Annotated[int, Field(ge=1, le=10**9)]  #: steps, clips, words: what is counted from one
AtLeastNone = Annotated[int, Field(ge=0, le=10**9)]  #: what may be left out
Width = Annotated[int, Field(ge=1, le=2**16)]  #: of layers: channels, heads, blocks, experts; pixels on a side
BatchSize = Annotated[int, Field(ge=1, le=2**20)]  #: items computed at once
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Share = Annotated[float, Field(ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
LossWeight = Annotated[float, Field(ge=0, le=1e6)]
LearningRate = Annotated[float, Field(ge=0, le=10)]  #: 0 leaves the weights as they are
DenoisingSteps = Annotated[int, Field(ge=1, le=1000)]  #: as many as there are noise levels
FrameRate = Annotated[float, Field(gt=0, le=1000)]  #: frames a second

_KINDS = {list: "list", str: "text", bool: "truth value", type(None): "null"}
_BUILT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
_WORDS = {
    "greater_than_equal": "must be at least {ge:g}",
    "greater_than": "must be above {gt:g}",
    "less_than_equal": "must be at most {le:g}",
    "less_than": "must be below {lt:g}",
}


def check_fields(built: Any, part: str = "") -> None:
    """Check every field of a dataclass against its annotation: the type strictly, numbers finite and in their range.

    Called first in ``__post_init__``: whatever is built from code, flags or a file is then known to be possible.

    Args:
        built: the dataclass.
        part: what it is in the whole that a person knows, for the message: ``losses`` of a recipe.

    Raises:
        ValueError: the first field that is not what it says it is, with its value.
    """
    kind: Any = type(built)
    for name, adapter in _adapters(kind).items():
        value = getattr(built, name)
        try:
            adapter.validate_python([value])
        except ValidationError as error:
            whole = f"{part}.{name}" if part else name
            raise ValueError(f"{whole}={shown(value)} {complaint(error)}") from None


def decoded(kind: type[T], raw: bytes) -> T:
    """A dataclass from JSON; with the configuration :data:`STRICT` it has exactly its fields, of their types, finite.

    Raises:
        ValueError: what is wrong with which field, in one line.
    """
    try:
        return TypeAdapter(kind).validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        what = " ".join(str(first["ctx"]["error"] if first["type"] == "value_error" else first["msg"]).split())
        raise ValueError(f"{where}: {what}" if where else what) from error


def read_json(path: Path, most_bytes: int = MOST_BYTES) -> Any:
    """What a JSON file holds, whatever that is.

    Raises:
        ValueError: no file, such as a pipe; too large, not UTF-8, no JSON, or nested without end. One line.
        OSError: it cannot be opened.
    """
    return parsed(read_regular(path, most_bytes))


def parsed(raw: bytes | str, *, unique: bool = False) -> Any:
    """What a JSON text holds.

    Args:
        raw: the text.
        unique: refuse objects that name a key twice, of which the last would be read.

    Raises:
        ValueError: no JSON, not UTF-8, nested without end, or a key twice.
    """
    try:
        return json.loads(raw, object_pairs_hook=_unique if unique else None)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it names {max(names, key=names.count)!r:.80} twice")
    return found


def read_object(path: Path, cure: str, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """What a JSON file holds that must hold an object.

    Args:
        path: of the file.
        cure: what to do if it is damaged, for the message.
        most_bytes: of the file.

    Raises:
        ValueError: as :func:`read_json`, or it holds something else; names the file and the cure.
        OSError: it cannot be opened.
    """
    try:
        document = read_json(path, most_bytes)
        if not isinstance(document, dict):
            raise ValueError(f"it holds a {_KINDS.get(type(document), 'number')}, not an object")
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): {cure}") from None
    return document


@cache
def _adapters(kind: Any) -> dict[str, TypeAdapter]:
    hints = get_type_hints(kind, include_extras=True)
    # a list of one: an adapter of a dataclass itself takes no configuration
    listed: dict[str, Any] = {f.name: GenericAlias(list, (hints[f.name],)) for f in fields(kind)}
    return {name: TypeAdapter(hint, config=_BUILT) for name, hint in listed.items()}


def shown(value: object) -> str:
    """A value as a message shows it: cut, if it is long."""
    try:
        text = repr(value)
    except ValueError:  # more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= 60 else f"{text[:57]}…"


def complaint(error: ValidationError) -> str:
    """What is wrong with a value, in words that follow it."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] in _WORDS:
        return _WORDS[first["type"]].format(**first["ctx"])
    return first["msg"].replace("Input should", "must", 1)
