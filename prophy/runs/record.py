"""What run.json says of a run: its record, and the size and SHA-256 of the files that it names."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from prophy import phenomena
from prophy.routing.attention import MAX_BYTES as ATTENTION_MAX_BYTES
from prophy.routing.attention import MAX_WORD_CHARS
from prophy.routing.schedule import Schedule
from prophy.routing.steering import Steering
from prophy.runs.computation import Computation

SCHEMA = 1
#: every file that run.json may name, and its largest size in bytes
FILE_MAX_BYTES = {
    "video.mp4": 2**29,
    "poster.png": 2**25,
    "routing.npz": 2**29,
    "sheet.png": 2**26,
    "attention.npz": ATTENTION_MAX_BYTES,
}
MAX_UNKNOWN_WORDS = 1000  #: of a prompt that a record keeps
_ALWAYS_PRESENT = frozenset({"video.mp4", "poster.png"})
_CREATED = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(r"[a-z][a-z0-9_]{0,39}")
_REQUIRED_SETTINGS = {"steps": int, "guidance": float, "frames": int, "height": int, "width": int, "fps": float}


class RunError(ValueError):
    """A run directory, or what should become one, is not valid. The message is one line."""


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class RunRecord:
    """What is known about a generation besides its frames and its routing.

    Attributes:
        prompt: as typed, 1 to 4000 characters.
        seed: 0 to 2^63 - 1.
        settings: JSON scalars by name; always ``steps``, ``guidance``, ``frames``, ``height`` and ``width`` in pixels,
            and ``fps``.
        model_id: the model's folder name or hub id, never a path of this machine.
        model_sha256: :func:`prophy.generation.identity.model_hash` of the weights that made the clip.
        timings: seconds by stage.
        unknown_words: words of the prompt that the model's tokenizer has never seen.
        created: UTC, ``YYYY-MM-DDTHH:MM:SSZ``.
        phenomena_version: :data:`prophy.phenomena.VERSION` of the program that made the run.
        steering: what was done to the experts; only when it is not neutral does run.json hold it.
        schedule: when the branch ran; only when that was not in every pass does run.json hold it.
        computation: scheduler, adapters, dtypes and the like; not known of runs that 0.1.0 made.

    Raises:
        RunError: a field has the wrong type, range or size.
    """

    prompt: str
    seed: int
    settings: Mapping[str, Any]
    model_id: str
    model_sha256: str
    timings: Mapping[str, float] = field(default_factory=dict)
    unknown_words: tuple[str, ...] = ()
    created: str = field(default_factory=_now)
    phenomena_version: str = phenomena.VERSION
    steering: Steering = field(default_factory=Steering)
    schedule: Schedule = field(default_factory=Schedule)
    computation: Computation = field(default_factory=Computation)

    def __post_init__(self) -> None:
        require(_is_text(self.prompt, 4000) and self.prompt.strip() != "", "prompt must be 1 to 4000 characters")
        require(_is_int(self.seed) and 0 <= self.seed < 2**63, "seed must be a whole number from 0 to 2^63 - 1")
        require(_is_text(self.model_id, 200) and self.model_id != "", "model id must be 1 to 200 characters")
        require(_matches(_SHA256, self.model_sha256), "model hash must be 64 hexadecimal digits")
        require(_matches(_CREATED, self.created), "created must look like 2026-01-31T12:00:00Z")
        require(
            self.phenomena_version == phenomena.VERSION,
            f"phenomena version {self.phenomena_version!r} is not {phenomena.VERSION!r}: another release made this run",
        )
        _check_mapping("settings", self.settings)
        for name, kind in _REQUIRED_SETTINGS.items():
            value: Any = self.settings.get(name)
            is_right = _is_int(value) if kind is int else _is_int(value) or isinstance(value, float)
            is_in_range = is_right and 0 <= value < 1e6 and (value > 0 or name == "guidance")
            require(is_in_range, f"settings must hold {name}, a positive number below a million")
        require(isinstance(self.steering, Steering), "steering must be a Steering")
        require(isinstance(self.schedule, Schedule), "schedule must be a Schedule")
        require(isinstance(self.computation, Computation), "computation must be a Computation")
        _check_mapping("timings", self.timings)
        require(all(_is_int(v) or isinstance(v, float) for v in self.timings.values()), "timings must be seconds")
        words = self.unknown_words
        require(isinstance(words, tuple) and len(words) <= MAX_UNKNOWN_WORDS, "unknown words must be at most 1000")
        require(
            all(_is_text(word, MAX_WORD_CHARS) for word in words), "each unknown word must be at most 200 characters"
        )
        object.__setattr__(self, "settings", MappingProxyType(dict(self.settings)))
        object.__setattr__(self, "timings", MappingProxyType(dict(self.timings)))


@dataclass(frozen=True)
class StoredFile:
    """Size in bytes and SHA-256 of one file of a run."""

    bytes: int
    sha256: str


# --- run.json as text -------------------------------------------------------------------------------------------------

_RECORD_FIELDS = frozenset(RunRecord.__dataclass_fields__)
_OPTIONAL: dict[str, type[Steering] | type[Schedule] | type[Computation]] = {
    "steering": Steering,
    "schedule": Schedule,
    "computation": Computation,
}


def to_text(record: RunRecord, files: Mapping[str, StoredFile]) -> str:
    """run.json, one field a line."""
    entries = {name: asdict(entry) for name, entry in files.items()}
    document = {"schema": SCHEMA, **_as_json(record), "files": entries}
    lines = [f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in document.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _as_json(record: RunRecord) -> dict[str, Any]:
    plain = {name: getattr(record, name) for name in RunRecord.__dataclass_fields__}
    plain |= {"settings": dict(record.settings), "timings": dict(record.timings)}
    for name in _OPTIONAL:
        plain[name] = plain[name].to_json()
        if not plain[name]:
            del plain[name]  # as in runs written before there was such a thing
    return plain


def parse(raw: bytes, run_id: str) -> dict[str, Any]:
    """The object that run.json holds.

    Raises:
        RunError: it is no JSON, or no object; one line that names the run.
    """

    def refuse_constant(text: str) -> None:
        raise ValueError(f"{text} is not JSON")

    try:
        document = json.loads(raw.decode("utf-8"), parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RunError(f"run {run_id}: run.json is not valid JSON ({str(error)[:120]})") from None
    if not isinstance(document, dict):
        raise RunError(f"run {run_id}: run.json must hold an object")
    return document


def from_json(document: dict[str, Any]) -> tuple[RunRecord, dict[str, StoredFile]]:
    """The record and the files by name, every field checked.

    Raises:
        RunError: a field is missing, unknown or wrong.
    """
    require(_is_int(document.get("schema")) and document["schema"] == SCHEMA, f"run.json is not of schema {SCHEMA}")
    expected = _RECORD_FIELDS | {"schema", "files"}
    missing, unknown = sorted(expected - document.keys() - _OPTIONAL.keys()), sorted(document.keys() - expected)
    require(not missing, f"run.json lacks {', '.join(missing)}")
    require(not unknown, f"run.json holds unknown fields {', '.join(unknown)[:120]}")
    fields = {name: document[name] for name in _RECORD_FIELDS & document.keys()}
    require(isinstance(fields["unknown_words"], list), "unknown words must be a list")
    for name, kind in _OPTIONAL.items():
        try:
            fields[name] = kind.from_json(fields.get(name, {}))
        except ValueError as error:
            raise RunError(f"{name}: {error}") from None
    record = RunRecord(**{**fields, "unknown_words": tuple(fields["unknown_words"])})

    entries = document["files"]
    require(isinstance(entries, dict), "files must be an object")
    require(entries.keys() >= _ALWAYS_PRESENT, f"files must hold {' and '.join(sorted(_ALWAYS_PRESENT))}")
    files = {}
    for name, entry in entries.items():
        require(name in FILE_MAX_BYTES, f"{name[:80]!r} is not a file of a run")
        require(isinstance(entry, dict) and entry.keys() == {"bytes", "sha256"}, f"{name} needs bytes and sha256")
        require(_is_int(entry["bytes"]) and entry["bytes"] >= 0, f"{name}: bytes must be a whole number")
        require(_matches(_SHA256, entry["sha256"]), f"{name}: sha256 must be 64 hexadecimal digits")
        files[name] = StoredFile(entry["bytes"], entry["sha256"])
    return record, files


# --- checks -----------------------------------------------------------------------------------------------------------


def require(condition: bool, message: str) -> None:
    """Raise a :class:`RunError` unless the condition holds."""
    if not condition:
        raise RunError(message)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: object, max_chars: int) -> bool:
    # A lone surrogate is valid in a JSON escape and in a str, but in no file.
    return isinstance(value, str) and len(value) <= max_chars and not re.search(r"[\ud800-\udfff]", value)


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _check_mapping(name: str, mapping: Any) -> None:
    require(isinstance(mapping, Mapping) and len(mapping) <= 64, f"{name} must be an object of at most 64 entries")
    for key, value in mapping.items():
        require(_matches(_KEY, key), f"{name}: {str(key)[:40]!r} is not a lower-case name")
        is_scalar = value is None or isinstance(value, bool | int) or _is_text(value, 4000)
        is_finite = isinstance(value, float) and math.isfinite(value)
        require(is_scalar or is_finite, f"{name}: {key} must be a finite number, a text, true, false or null")
