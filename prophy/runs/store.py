"""The run directory: one generation on disk, shared by the app, the command line and the gallery. Only this file writes
and reads it.

    <root>/<run id>/
        run.json      prompt, seed, settings, steering, schedule, model, timings; size and SHA-256 of every other file
        video.mp4     the clip, enlarged for browsers
        poster.png    its middle frame
        routing.npz   the RoutingTrace; absent when no branch was attached
        sheet.png     frames above, routing below; absent with it
        attention.npz the AttentionTrace, if it was to be recorded; run.json does not name it, so that releases that do
                      not know it read the run
        owner         digest of a visitor's secret, see owner.py; only of runs that the app made

A run is written under a hidden name and renamed when it is whole, so a half-written one is never listed. A reader
trusts nothing: names, types, sizes and hashes are checked, links are refused, and every refusal is one line.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
import re
import secrets
import shutil
import stat
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from prophy import phenomena
from prophy.files import sha256
from prophy.grid import TokenGrid
from prophy.routing.attention import MAX_BYTES as ATTENTION_MAX_BYTES
from prophy.routing.attention import AttentionTrace
from prophy.routing.schedule import Schedule
from prophy.routing.steering import Steering
from prophy.routing.trace import RoutingTrace
from prophy.runs.computation import Computation
from prophy.runs.owner import write_owner
from prophy.runs.pictures import write_png

if TYPE_CHECKING:
    from prophy.video import Clip

logger = logging.getLogger(__name__)

SCHEMA = 1
_RECORD = "run.json"
_ATTENTION = "attention.npz"
_RECORD_MAX_BYTES = 2**21  # room for every cell a steering may paint
_FILE_MAX_BYTES = {"video.mp4": 2**29, "poster.png": 2**25, "routing.npz": 2**29, "sheet.png": 2**26}
_ALWAYS_PRESENT = frozenset({"video.mp4", "poster.png"})
_RUN_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_RUN_ID_MAX_CHARS = 96
_CREATED = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEY = re.compile(r"[a-z][a-z0-9_]{0,39}")
_REQUIRED_SETTINGS = {"steps": int, "guidance": float, "frames": int, "height": int, "width": int, "fps": float}
_BROWSER_SIDE = 512  # small clips are enlarged to about this many pixels before they are encoded
_POSTER_SIDE = 192  # a poster is looked at small, and an enlarged one holds no more than the clip's own pixels
_ENLARGED_CRF = 22  # a third of the bytes; encoded again, three clips keep 44 to 45 dB at their own 64×64 pixels


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
        _require(_is_text(self.prompt, 4000) and self.prompt.strip() != "", "prompt must be 1 to 4000 characters")
        _require(_is_int(self.seed) and 0 <= self.seed < 2**63, "seed must be a whole number from 0 to 2^63 - 1")
        _require(_is_text(self.model_id, 200) and self.model_id != "", "model id must be 1 to 200 characters")
        _require(_matches(_SHA256, self.model_sha256), "model hash must be 64 hexadecimal digits")
        _require(_matches(_CREATED, self.created), "created must look like 2026-01-31T12:00:00Z")
        _require(
            self.phenomena_version == phenomena.VERSION,
            f"phenomena version {self.phenomena_version!r} is not {phenomena.VERSION!r}: another release made this run",
        )
        _check_mapping("settings", self.settings)
        for name, kind in _REQUIRED_SETTINGS.items():
            value: Any = self.settings.get(name)
            is_right = _is_int(value) if kind is int else _is_int(value) or isinstance(value, float)
            is_in_range = is_right and 0 <= value < 1e6 and (value > 0 or name == "guidance")
            _require(is_in_range, f"settings must hold {name}, a positive number below a million")
        _require(isinstance(self.steering, Steering), "steering must be a Steering")
        _require(isinstance(self.schedule, Schedule), "schedule must be a Schedule")
        _require(isinstance(self.computation, Computation), "computation must be a Computation")
        _check_mapping("timings", self.timings)
        _require(all(_is_int(v) or isinstance(v, float) for v in self.timings.values()), "timings must be seconds")
        words = self.unknown_words
        _require(isinstance(words, tuple) and len(words) <= 1000, "unknown words must be at most 1000")
        _require(all(_is_text(word, 200) for word in words), "each unknown word must be at most 200 characters")
        object.__setattr__(self, "settings", MappingProxyType(dict(self.settings)))
        object.__setattr__(self, "timings", MappingProxyType(dict(self.timings)))


@dataclass(frozen=True)
class StoredFile:
    """Size in bytes and SHA-256 of one file of a run."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Run:
    """One run on disk. Only :func:`read_run` and :func:`write_run` make one, so its files were checked.

    Attributes:
        id: the directory's name, ``[a-z0-9-]+``.
        path: the directory.
        record: what run.json says.
        files: by name, what run.json says of each.
    """

    id: str
    path: Path
    record: RunRecord
    files: Mapping[str, StoredFile]

    @property
    def video_path(self) -> Path:
        return self.path / "video.mp4"

    @property
    def poster_path(self) -> Path:
        return self.path / "poster.png"

    @property
    def routing_path(self) -> Path | None:
        """The saved trace, or None for a run made without a branch."""
        return self.path / "routing.npz" if "routing.npz" in self.files else None

    @property
    def sheet_path(self) -> Path | None:
        return self.path / "sheet.png" if "sheet.png" in self.files else None

    def clip(self) -> Clip:
        """Decode the video: uint8 RGB (F, H·scale, W·scale, 3) and frames per second.

        Raises:
            RunError: the video does not decode, or not to the frames run.json says.
        """
        from prophy.video import read_video

        try:
            clip = read_video(self.video_path)
        except ValueError as error:
            raise RunError(f"run {self.id}: {error}") from error
        expected = self.record.settings["frames"]
        if len(clip.frames) != expected:
            raise RunError(f"run {self.id}: video.mp4 has {len(clip.frames)} frames, not {expected}")
        return clip

    def trace(self) -> RoutingTrace | None:
        """Load the routing, or None for a run made without a branch.

        Raises:
            RunError: routing.npz is broken or belongs to another prompt, seed or size.
        """
        if self.routing_path is None:
            return None
        try:
            trace = RoutingTrace.load(self.routing_path)
        except (ValueError, OSError) as error:
            raise RunError(f"run {self.id}: {error}") from error
        _check_trace_belongs(trace, self.record)
        return trace

    def attention(self) -> AttentionTrace | None:
        """Load what the backbone attended to, or None where that was not recorded.

        Raises:
            RunError: attention.npz is broken or belongs to another run.
        """
        path = self.path / _ATTENTION
        if not os.path.lexists(path):
            return None
        try:
            _open_regular(path, ATTENTION_MAX_BYTES).close()  # no link, no pipe
            attention = AttentionTrace.load(path)
        except (ValueError, OSError) as error:
            raise RunError(f"run {self.id}: {error}") from error
        _check_attention_belongs(attention, self.record)
        return attention

    def read_bytes(self, name: str) -> bytes:
        """One of :attr:`files`, run.json itself, or the recorded attention, as it is stored.

        Raises:
            RunError: the run has no such file, or it changed since the run was read.
        """
        if name == _RECORD:
            raw = _read_regular(self.path / name, _RECORD_MAX_BYTES)
            is_same = _from_json(_parse(raw, self.id)) == (self.record, self.files)
        elif name == _ATTENTION:
            raw, is_same = _read_regular(self.path / name, ATTENTION_MAX_BYTES), True
        else:
            _require(name in self.files, f"run {self.id} has no file {name[:80]!r}")
            raw = _read_regular(self.path / name, _FILE_MAX_BYTES[name])
            is_same = sha256(raw) == self.files[name].sha256
        _require(is_same, f"run {self.id}: {name} changed since the run was read")
        return raw


def write_run(
    root: str | Path,
    record: RunRecord,
    frames: np.ndarray,
    *,
    trace: RoutingTrace | None = None,
    attention: AttentionTrace | None = None,
    sheet: np.ndarray | None = None,
    run_id: str | None = None,
    owner: str | None = None,
) -> Run:
    """Write a run directory under ``root`` (created if missing), all of it or nothing.

    Args:
        root: the folder of runs.
        record: what run.json will say.
        frames: uint8 RGB, (F, H, W, 3), as ``record.settings`` says.
        trace: the routing of the same generation.
        attention: what its backbone attended to.
        sheet: uint8 RGB (H, W, 3), for instance from :func:`prophy.runs.sheets.contact_sheet`.
        run_id: the directory's name; by default made of the time, the prompt and eight random digits.
        owner: digest of the secret of whoever may change the run; None: nobody's.

    Raises:
        RunError: the frames or the trace do not belong to the record, the id is not safe, or it is taken.
        prophy.runs.owner.OwnerError: the owner is no digest.
        OSError: the disk refused.
    """
    from prophy.video import write_video

    root = Path(root)
    run_id = _new_run_id(record) if run_id is None else _checked_run_id(run_id)
    settings = record.settings
    expected = (settings["frames"], settings["height"], settings["width"], 3)
    _require(frames.shape == expected, f"frames are {frames.shape}, but the settings say {expected}")
    if trace is not None:
        _check_trace_belongs(trace, record)
    if attention is not None:
        _check_attention_belongs(attention, record)
    root.mkdir(parents=True, exist_ok=True)
    final, partial = root / run_id, root / f".partial-{run_id}-{secrets.token_hex(4)}"
    _require(not os.path.lexists(final), f"run {run_id} already exists in {root}: choose another id")

    partial.mkdir()
    try:
        scale = _enlargement(frames, _BROWSER_SIDE)
        crf = {"crf": _ENLARGED_CRF} if scale >= 4 else {}
        write_video(partial / "video.mp4", frames, settings["fps"], scale=scale, **crf)
        scale = _enlargement(frames, _POSTER_SIDE)
        poster = cv2.resize(frames[len(frames) // 2], None, fx=scale, fy=scale, interpolation=cv2.INTER_LANCZOS4)
        write_png(partial / "poster.png", poster)
        if trace is not None:
            trace.save(partial / "routing.npz")
        if attention is not None:
            attention.save(partial / _ATTENTION)
        if sheet is not None:
            write_png(partial / "sheet.png", sheet)
        written = [name for name in _FILE_MAX_BYTES if (partial / name).exists()]
        files = {name: asdict(_stored_file(partial / name, _FILE_MAX_BYTES[name])) for name in written}
        document = {"schema": SCHEMA, **_as_json(record), "files": files}
        (partial / _RECORD).write_text(_one_field_a_line(document), encoding="utf-8")
        if owner is not None:
            write_owner(partial, owner)
        for name in (*written, _RECORD, *([] if attention is None else [_ATTENTION])):
            _sync(partial / name)
        try:
            os.rename(partial, final)
        except OSError as error:
            raise RunError(f"run {run_id} could not take its place in {root}: {error.strerror}") from error
        _sync(root)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return read_run(final)


def read_run(path: str | Path, *, check_hashes: bool = True) -> Run:
    """Read and validate a run directory.

    Args:
        path: the directory.
        check_hashes: False skips the SHA-256 of the files (their sizes are still checked), for quick listings.

    Raises:
        RunError: anything about the directory is not as :func:`write_run` leaves it.
    """
    path = Path(path)
    run_id = _checked_run_id(path.name)
    if path.is_symlink():
        raise RunError(f"run {run_id} is a link: copy the directory itself")
    if not path.is_dir():
        raise RunError(f"no run at {path}")
    document = _parse(_read_regular(path / _RECORD, _RECORD_MAX_BYTES), run_id)
    try:
        record, files = _from_json(document)
        for name, entry in files.items():
            found = _stored_file(path / name, _FILE_MAX_BYTES[name], hashed=check_hashes)
            _require(found.bytes == entry.bytes, f"{name} has {found.bytes} bytes, run.json says {entry.bytes}")
            _require(not check_hashes or found.sha256 == entry.sha256, f"{name} does not match its SHA-256 in run.json")
    except RunError as error:
        raise RunError(f"run {run_id}: {error}") from None
    return Run(run_id, path, record, MappingProxyType(files))


def find_run(root: str | Path, run_id: str) -> Run:
    """Read the run with this id, given by an untrusted caller, under ``root``.

    Raises:
        RunError: the id is not a run id, or there is no valid run of that name.
    """
    return read_run(Path(root) / _checked_run_id(run_id))


def run_folder(root: str | Path, run_id: str) -> Path:
    """Where the run with this id, given by an untrusted caller, lies under ``root``, damaged ones too.

    Raises:
        RunError: the id is not a run id, or there is no run of that name.
    """
    path = Path(root) / _checked_run_id(run_id)
    if path.is_symlink() or not (path / _RECORD).is_file():
        raise RunError(f"no run {run_id} here: it was deleted, or made elsewhere")
    return path


def delete_run(root: str | Path, run_id: str) -> None:
    """Delete the run with this id, given by an untrusted caller, under ``root``, damaged ones too.

    Raises:
        RunError: the id is not a run id, or there is no run of that name.
    """
    path = run_folder(root, run_id)
    # Out of every list at once, whatever happens while its files go.
    gone = path.with_name(f".deleted-{run_id}-{secrets.token_hex(4)}")
    os.rename(path, gone)
    shutil.rmtree(gone)


def list_runs(root: str | Path) -> list[Run]:
    """Every valid run under ``root``, newest first. A directory that is not a valid run is logged and left out."""
    root = Path(root)
    if not root.is_dir():
        return []
    runs = []
    for child in sorted(root.iterdir()):
        if not _is_run_id(child.name) or not (child / _RECORD).exists():
            continue
        try:
            runs.append(read_run(child, check_hashes=False))
        except RunError as error:
            logger.warning("left out of the list: %s", error)
    return sorted(runs, key=lambda run: (run.record.created, run.id), reverse=True)


# --- ids -------------------------------------------------------------------------------------------------------------


def _is_run_id(text: object) -> bool:
    return isinstance(text, str) and len(text) <= _RUN_ID_MAX_CHARS and _RUN_ID.fullmatch(text) is not None


def _checked_run_id(text: object) -> str:
    if not isinstance(text, str) or not _is_run_id(text):
        raise RunError(f"{str(text)[:80]!r} is not a run id: lower-case letters, digits and single dashes only")
    return text


def _new_run_id(record: RunRecord) -> str:
    ascii_prompt = unicodedata.normalize("NFKD", record.prompt).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_prompt).strip("-")[:40].strip("-") or "prompt"
    time = re.sub(r"[^0-9T]", "", record.created).replace("T", "-")
    return f"{time}-{slug}-s{record.seed}-{secrets.token_hex(4)}"


# --- run.json --------------------------------------------------------------------------------------------------------

_RECORD_FIELDS = frozenset(RunRecord.__dataclass_fields__)
_OPTIONAL: dict[str, type[Steering] | type[Schedule] | type[Computation]] = {
    "steering": Steering,
    "schedule": Schedule,
    "computation": Computation,
}


def _as_json(record: RunRecord) -> dict[str, Any]:
    plain = {name: getattr(record, name) for name in RunRecord.__dataclass_fields__}
    plain |= {"settings": dict(record.settings), "timings": dict(record.timings)}
    for name in _OPTIONAL:
        plain[name] = plain[name].to_json()
        if not plain[name]:
            del plain[name]  # as in runs written before there was such a thing
    return plain


def _one_field_a_line(document: dict[str, Any]) -> str:
    lines = [f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in document.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _parse(raw: bytes, run_id: str) -> dict[str, Any]:
    def refuse_constant(text: str) -> None:
        raise ValueError(f"{text} is not JSON")

    try:
        document = json.loads(raw.decode("utf-8"), parse_constant=refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RunError(f"run {run_id}: run.json is not valid JSON ({str(error)[:120]})") from None
    if not isinstance(document, dict):
        raise RunError(f"run {run_id}: run.json must hold an object")
    return document


def _from_json(document: dict[str, Any]) -> tuple[RunRecord, dict[str, StoredFile]]:
    _require(_is_int(document.get("schema")) and document["schema"] == SCHEMA, f"run.json is not of schema {SCHEMA}")
    expected = _RECORD_FIELDS | {"schema", "files"}
    missing, unknown = sorted(expected - document.keys() - _OPTIONAL.keys()), sorted(document.keys() - expected)
    _require(not missing, f"run.json lacks {', '.join(missing)}")
    _require(not unknown, f"run.json holds unknown fields {', '.join(unknown)[:120]}")
    fields = {name: document[name] for name in _RECORD_FIELDS & document.keys()}
    _require(isinstance(fields["unknown_words"], list), "unknown words must be a list")
    for name, kind in _OPTIONAL.items():
        try:
            fields[name] = kind.from_json(fields.get(name, {}))
        except ValueError as error:
            raise RunError(f"{name}: {error}") from None
    record = RunRecord(**{**fields, "unknown_words": tuple(fields["unknown_words"])})

    entries = document["files"]
    _require(isinstance(entries, dict), "files must be an object")
    _require(entries.keys() >= _ALWAYS_PRESENT, f"files must hold {' and '.join(sorted(_ALWAYS_PRESENT))}")
    files = {}
    for name, entry in entries.items():
        _require(name in _FILE_MAX_BYTES, f"{name[:80]!r} is not a file of a run")
        _require(isinstance(entry, dict) and entry.keys() == {"bytes", "sha256"}, f"{name} needs bytes and sha256")
        _require(_is_int(entry["bytes"]) and entry["bytes"] >= 0, f"{name}: bytes must be a whole number")
        _require(_matches(_SHA256, entry["sha256"]), f"{name}: sha256 must be 64 hexadecimal digits")
        files[name] = StoredFile(entry["bytes"], entry["sha256"])
    return record, files


def _check_trace_belongs(trace: RoutingTrace, record: RunRecord) -> None:
    _check_belongs("routing", trace.prompt, trace.seed, trace.grid, record)


def _check_attention_belongs(attention: AttentionTrace, record: RunRecord) -> None:
    _check_belongs("recorded attention", attention.prompt, attention.seed, attention.grid, record)


def _check_belongs(what: str, prompt: str, seed: int, grid: TokenGrid, record: RunRecord) -> None:
    _require(prompt == record.prompt, f"the {what} belongs to another prompt")
    _require(seed == record.seed, f"the {what} belongs to another seed")
    covered, expected = grid.num_video_frames, record.settings["frames"]
    _require(covered == expected, f"the {what} covers {covered} frames, the clip has {expected}")


def _require(condition: bool, message: str) -> None:
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
    _require(isinstance(mapping, Mapping) and len(mapping) <= 64, f"{name} must be an object of at most 64 entries")
    for key, value in mapping.items():
        _require(_matches(_KEY, key), f"{name}: {str(key)[:40]!r} is not a lower-case name")
        is_scalar = value is None or isinstance(value, bool | int) or _is_text(value, 4000)
        is_finite = isinstance(value, float) and math.isfinite(value)
        _require(is_scalar or is_finite, f"{name}: {key} must be a finite number, a text, true, false or null")


# --- files -----------------------------------------------------------------------------------------------------------


def _open_regular(path: Path, max_bytes: int) -> io.BufferedReader:
    # O_NOFOLLOW: a link in a run could show any file of the machine. O_NONBLOCK: opening a named pipe would hang.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise RunError(f"{path.name} cannot be read: {error.strerror}") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
        os.close(descriptor)
        reason = f"is larger than {max_bytes} bytes" if stat.S_ISREG(status.st_mode) else "is not a regular file"
        raise RunError(f"{path.name} {reason}")
    return os.fdopen(descriptor, "rb")


def _read_regular(path: Path, max_bytes: int) -> bytes:
    with _open_regular(path, max_bytes) as file:
        return file.read(max_bytes)


def _stored_file(path: Path, max_bytes: int, *, hashed: bool = True) -> StoredFile:
    with _open_regular(path, max_bytes) as file:
        size = os.fstat(file.fileno()).st_size
        return StoredFile(size, hashlib.file_digest(file, "sha256").hexdigest() if hashed else "")


def _enlargement(frames: np.ndarray, side: int) -> int:
    """The whole factor from 1 to 16 that brings the shorter side of (F, H, W, 3) to about ``side`` pixels."""
    return min(16, max(1, side // min(frames.shape[1:3])))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
