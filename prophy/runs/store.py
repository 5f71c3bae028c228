"""The run directory: one generation on disk, shared by the app, the command line and the gallery. Only this file and
record.py write and read it::

    <root>/<run id>/
        run.json      prompt, seed, settings, steering, schedule, model, timings; size and SHA-256 of the next five
        video.mp4     the clip, enlarged for browsers
        poster.png    its middle frame
        routing.npz   the RoutingTrace; absent when no branch was attached
        sheet.png     frames above, routing below; absent with it
        attention.npz the AttentionTrace; absent where it was not to be recorded
        owner         digest of a visitor's secret, see owner.py; only of runs that the app made

A run is written under a hidden name and renamed when it is whole, so a half-written one is never listed. A reader
trusts nothing: names, types, sizes and hashes are checked, links are refused, and every refusal is one line.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import secrets
import shutil
import stat
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import cv2
import numpy as np

from prophy.files import sha256
from prophy.grid import TokenGrid
from prophy.routing.attention import AttentionTrace
from prophy.routing.trace import RoutingTrace
from prophy.runs.owner import write_owner
from prophy.runs.pictures import write_png
from prophy.runs.record import FILE_MAX_BYTES, RunError, RunRecord, StoredFile, from_json, parse, require, to_text

if TYPE_CHECKING:
    from prophy.video import Clip

logger = logging.getLogger(__name__)

_RECORD = "run.json"
_RECORD_MAX_BYTES = 2**21  # room for every cell a steering may paint
_RUN_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_RUN_ID_MAX_CHARS = 96
_BROWSER_SIDE = 512  # small clips are enlarged to about this many pixels before they are encoded
_POSTER_SIDE = 192  # a poster is looked at small, and an enlarged one holds no more than the clip's own pixels
_ENLARGED_CRF = 22  # a third of the bytes; encoded again, three clips keep 44 to 45 dB at their own 64×64 pixels


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
            RunError: attention.npz is broken, belongs to another run, or lies there without its digest in run.json;
                its token grid is not the routing's.
        """
        path = self.path / "attention.npz"
        if path.name not in self.files:
            is_absent = not os.path.lexists(path)
            require(
                is_absent, f"run {self.id}: run.json has no digest of {path.name}: delete it, or make the clip anew"
            )
            return None
        try:
            attention = AttentionTrace.load(path)
            grid = None if self.routing_path is None else RoutingTrace.grid_in(self.routing_path)
        except (ValueError, OSError) as error:
            raise RunError(f"run {self.id}: {error}") from error
        _check_attention_belongs(attention, grid, self.record)
        return attention

    def read_bytes(self, name: str) -> bytes:
        """One of ``files``, or run.json itself, as it is stored.

        Raises:
            RunError: the run has no such file, or it changed since the run was read.
        """
        if name == _RECORD:
            raw = _read_regular(self.path / name, _RECORD_MAX_BYTES)
            is_same = from_json(parse(raw, self.id)) == (self.record, self.files)
        else:
            require(name in self.files, f"run {self.id} has no file {name[:80]!r}")
            raw = _read_regular(self.path / name, FILE_MAX_BYTES[name])
            is_same = sha256(raw) == self.files[name].sha256
        require(is_same, f"run {self.id}: {name} changed since the run was read")
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
    require(frames.shape == expected, f"frames are {frames.shape}, but the settings say {expected}")
    if trace is not None:
        _check_trace_belongs(trace, record)
    if attention is not None:
        _check_attention_belongs(attention, None if trace is None else trace.grid, record)
    root.mkdir(parents=True, exist_ok=True)
    final, partial = root / run_id, root / f".partial-{run_id}-{secrets.token_hex(4)}"
    require(not os.path.lexists(final), f"run {run_id} already exists in {root}: choose another id")

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
            attention.save(partial / "attention.npz")
        if sheet is not None:
            write_png(partial / "sheet.png", sheet)
        written = [name for name in FILE_MAX_BYTES if (partial / name).exists()]
        files = {name: _stored_file(partial / name, FILE_MAX_BYTES[name]) for name in written}
        (partial / _RECORD).write_text(to_text(record, files), encoding="utf-8")
        if owner is not None:
            write_owner(partial, owner)
        for name in (*written, _RECORD):
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
    document = parse(_read_regular(path / _RECORD, _RECORD_MAX_BYTES), run_id)
    try:
        record, files = from_json(document)
        for name, entry in files.items():
            found = _stored_file(path / name, FILE_MAX_BYTES[name], hashed=check_hashes)
            require(found.bytes == entry.bytes, f"{name} has {found.bytes} bytes, run.json says {entry.bytes}")
            require(not check_hashes or found.sha256 == entry.sha256, f"{name} does not match its SHA-256 in run.json")
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


def _check_trace_belongs(trace: RoutingTrace, record: RunRecord) -> None:
    _check_belongs("routing", trace.prompt, trace.seed, trace.grid, record)


def _check_attention_belongs(attention: AttentionTrace, routing: TokenGrid | None, record: RunRecord) -> None:
    _check_belongs("recorded attention", attention.prompt, attention.seed, attention.grid, record)
    if routing is not None and attention.grid != routing:  # a token of one would be another place in the other
        ours, theirs = ("×".join(map(str, grid.shape)) for grid in (attention.grid, routing))
        raise RunError(f"the recorded attention has a grid of {ours} tokens, the routing one of {theirs}")


def _check_belongs(what: str, prompt: str, seed: int, grid: TokenGrid, record: RunRecord) -> None:
    require(prompt == record.prompt, f"the {what} belongs to another prompt")
    require(seed == record.seed, f"the {what} belongs to another seed")
    covered, expected = grid.num_video_frames, record.settings["frames"]
    require(covered == expected, f"the {what} covers {covered} frames, the clip has {expected}")


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
