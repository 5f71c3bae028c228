"""A cache of tensors for any pipeline: what an autoencoder, a text encoder or an annotator made of each clip.

    cache/cache.json                  the recipe, which every entry shares
    cache/clips.txt                   ids of the clips that should be there, a JSON string a line
    cache/0003-of-0016-00000.safetensors  and .json: some clips' tensors, and what they must look like
    cache/present/0003-of-0016.json   the worker's list: which entry each of its clips has now

An entry is keyed by its clip's content and the recipe: a changed clip has another key. What a worker's list names is
present; entries that no list names any more are superseded: they stay, and :func:`verify` names them. A shard's
tensors are written first and its JSON last; tensors without a JSON are a killed worker's and count as nothing. Shards
are never changed, so any number of workers can fill one folder, each under its own name.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from prophy.data.present import CLIPS, PRESENT, expected_ids, present_keys, read_list, write_list
from prophy.files import check_file, file_sha256, replacing, sha256, some_of, visible, write_text
from prophy.schema import read_json

FORMAT = "prophy-cache-v1"
ABOUT = "cache.json"
EMPTY_TEXT = "empty_text.safetensors"  #: beside the shards: embeddings of the empty prompt

_LATER = ("scale", "vocabulary")  # of a recipe: older releases did not note them

log = logging.getLogger(__name__)

Recipe = Mapping[str, str | int | float | bool | None]


@dataclass(frozen=True)
class Entry:
    """Where one clip's tensors are.

    Attributes:
        id: of the clip; several that differ by name alone share one entry, which was written under one of them.
        key: of its content and the recipe.
        shard: the safetensors file.
        tensors: name -> type and shape.
    """

    id: str
    key: str
    shard: Path
    tensors: dict[str, tuple[str, tuple[int, ...]]]


class Problem(NamedTuple):
    """Something about a cache: where, and what; ``harmless``: only to be known."""

    where: str
    what: str
    harmless: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class TensorCache:
    """A cache that is open for reading and filling.

    Args:
        folder: made if it is not there.
        recipe: everything that the tensors depend on but the clip: models and revisions, sizes, settings. None: open
            what is there.

    Raises:
        ValueError: the folder holds a cache of another recipe, or its description is damaged.
        FileNotFoundError: no cache there, and no recipe to begin one.
    """

    def __init__(self, folder: Path, recipe: Recipe | None = None) -> None:
        self.folder = Path(folder)
        about = self.folder / ABOUT
        if not about.exists():
            if recipe is None:
                raise FileNotFoundError(f"{self.folder} holds no cache ({ABOUT} is missing)")
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(about, json.dumps({"format": FORMAT, "recipe": dict(recipe)}, indent=2) + "\n", shared=True)
        self.recipe = _read_about(about)
        if recipe is not None:
            if unknown := [name for name in _LATER if name in recipe and name not in self.recipe]:
                log.warning(
                    "%s was begun by a release that noted no %s: not compared", folder, " and no ".join(unknown)
                )
            wanted = {name: value for name, value in recipe.items() if name not in unknown}
            if differing := _differing(self.recipe, wanted):
                raise ValueError(f"{self.folder} was made with another {', '.join(differing)}: choose another folder")
        self._entries: dict[str, Entry] = {}
        for index in visible(self.folder, "*.json"):
            if index.name != ABOUT:
                self._entries |= {entry.key: entry for entry in _read_index(index)[1]}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def entries(self) -> list[Entry]:
        """The present entries, one for each clip, by clip id and under it.

        Raises:
            ValueError: a clip has two, and no list says which is the present one.
        """
        keys = present_keys(self.folder, _by_id(self._entries.values()))
        return [replace(self._entries[key], id=name) for name, key in sorted(keys.items()) if key in self._entries]

    def missing(self) -> list[str]:
        """Ids of the clips that should be there and have no present entry; see :meth:`expect`."""
        here = {entry.id for entry in self.entries()}
        return [clip_id for clip_id in expected_ids(self.folder) or () if clip_id not in here]

    def key(self, content: str) -> str:
        """The key of a clip's content, any text that changes with it, under this cache's recipe."""
        text = json.dumps([FORMAT, self.recipe, content], sort_keys=True)
        return sha256(text)[:32]

    def read(self, key: str) -> dict[str, torch.Tensor]:
        """One clip's tensors.

        Raises:
            KeyError: it is not here.
            ValueError: its shard is damaged.
        """
        entry = self._entries[key]
        try:
            with safe_open(check_file(entry.shard), "pt") as file:
                return {name: file.get_tensor(f"{key}/{name}") for name in entry.tensors}
        except (SafetensorError, OSError, ValueError) as error:
            raise ValueError(f"{entry.shard.name} is damaged ({error}): see prophy cache verify") from error

    def expect(self, ids: Iterable[str]) -> None:
        """Write down which clips should be there, for :func:`verify`."""
        write_text(self.folder / CLIPS, "\n".join(json.dumps(clip_id) for clip_id in ids) + "\n", shared=True)

    def begin(self, workers: Sequence[str], name: str) -> None:
        """A worker goes through all its clips anew: what its list named, and those of another division, is forgotten.

        Args:
            workers: names of all that share the work.
            name: of this one.
        """
        write_list(self.folder / PRESENT / f"{name}.json", {})
        for path in visible(self.folder / PRESENT, "*.json"):
            if path.stem not in workers:
                path.unlink(missing_ok=True)

    @contextmanager
    def writer(self, name: str, clips_per_shard: int = 64) -> Iterator[ShardWriter]:
        """Add entries; the last, smaller shard is written at the end, also when the block is left by an error.

        Args:
            name: the worker's own, such as ``0003-of-0016``.
            clips_per_shard: what a killed worker may lose.
        """
        writer = ShardWriter(self, name, clips_per_shard)
        try:
            yield writer
        finally:
            writer.flush()

    def _add(self, entries: Iterable[Entry]) -> None:
        self._entries |= {entry.key: entry for entry in entries}


class ShardWriter:
    """Collects entries and writes them, some at a time; from :meth:`TensorCache.writer`."""

    def __init__(self, cache: TensorCache, name: str, clips_per_shard: int) -> None:
        if clips_per_shard < 1:
            raise ValueError(f"clips_per_shard={clips_per_shard} must be at least 1")
        self._cache, self._name, self._size = cache, name, clips_per_shard
        self._waiting: dict[str, tuple[str, dict[str, torch.Tensor]]] = {}
        taken = [path.stem.rpartition("-")[2] for path in cache.folder.glob(f"{name}-*.safetensors")]
        self._next = 1 + max((int(number) for number in taken if number.isdigit()), default=-1)
        self._list = cache.folder / PRESENT / f"{name}.json"
        self._present = read_list(self._list)

    def add(self, clip_id: str, key: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """One clip's tensors.

        Raises:
            ValueError: no tensors, or values that are not numbers.
        """
        if not tensors:
            raise ValueError(f"{clip_id} has no tensors")
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise ValueError(f"{name} of {clip_id} holds values that are not numbers: use another dtype")
        self._waiting[key] = (clip_id, {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()})
        self._present[clip_id] = key
        if len(self._waiting) >= self._size:
            self.flush()

    def keep(self, clip_id: str, key: str) -> None:
        """A clip's entry is there already, and is the present one."""
        self._present[clip_id] = key

    def flush(self) -> None:
        """Write what is waiting as a shard of its own, then the list of what is present.

        Raises:
            OSError: it cannot be written, such as on a full disk.
        """
        if self._waiting:
            self._write_shard()
        write_list(self._list, self._present)

    def _write_shard(self) -> None:
        shard = self._cache.folder / f"{self._name}-{self._next:05d}.safetensors"
        named = {f"{key}/{name}": t for key, (_, tensors) in self._waiting.items() for name, t in tensors.items()}
        try:
            with replacing(shard) as temporary:
                save_file(named, temporary)
                digest = file_sha256(temporary)
        except SafetensorError as error:
            raise OSError(
                f"{shard} cannot be written ({error}): make room and run again, written shards stay"
            ) from error
        entries = {
            key: {"id": clip_id, "tensors": {n: [_type(t), list(t.shape)] for n, t in tensors.items()}}
            for key, (clip_id, tensors) in self._waiting.items()
        }
        write_text(shard.with_suffix(".json"), json.dumps({"sha256": digest, "entries": entries}) + "\n", shared=True)
        self._cache._add(_read_index(shard.with_suffix(".json"))[1])
        self._next, self._waiting = self._next + 1, {}


def verify(folder: Path) -> list[Problem]:
    """What is wrong with a cache: hashes, types and shapes, values that are not numbers, missing clips; and what lies
    there without being read any more.

    Raises:
        FileNotFoundError: no cache there.
        ValueError: its description is damaged.
    """
    folder = Path(folder)
    cache_about = folder / ABOUT
    if not cache_about.exists():
        raise FileNotFoundError(f"{folder} holds no cache ({ABOUT} is missing)")
    _read_about(cache_about)
    problems: list[Problem] = []
    sound: dict[str, Entry] = {}
    indexed = set()
    for index in visible(folder, "*.json"):
        if index.name == ABOUT:
            continue
        try:
            digest, entries = _read_index(index)
        except ValueError as error:
            problems.append(Problem(index.name, str(error)))
            continue
        shard = index.with_suffix(".safetensors")
        indexed.add(shard.name)
        wrong = _check_shard(shard, digest, entries)
        problems += [Problem(shard.name, what) for what in wrong]
        if not wrong:
            sound |= {entry.key: entry for entry in entries}
    for path in visible(folder):
        if path.suffix == ".new":
            problems.append(Problem(path.name, "a killed worker's: delete it"))
        elif path.suffix == ".safetensors" and path.name not in indexed | {EMPTY_TEXT}:
            problems.append(Problem(path.name, "has no .json beside it, so it counts as nothing: delete it"))
    try:
        present = present_keys(folder, _by_id(sound.values()))
    except ValueError as error:
        return [*problems, Problem(PRESENT, str(error))]
    if (expected := expected_ids(folder)) is not None:
        missing = [clip_id for clip_id in expected if present.get(clip_id) not in sound]
        if missing:
            problems.append(Problem(CLIPS, f"{len(missing)} of {len(expected)} clips are missing: {some_of(missing)}"))
    read = set(present.values())
    if left := [entry for entry in sound.values() if entry.key not in read]:
        changed = sorted({entry.id for entry in left if entry.id in present})
        foreign = sorted({entry.id for entry in left if entry.id not in present})
        for ids, why in ((changed, "superseded: the clip is another now"), (foreign, "of clips no longer asked for")):
            if ids:
                what = f"{len(ids)} entries are {why}; no training reads them: {some_of(ids)}"
                problems.append(Problem(PRESENT, what, harmless=True))
    return problems


def _check_shard(shard: Path, digest: str, entries: list[Entry]) -> list[str]:
    if not shard.exists():
        return ["is missing: delete its .json and fill the cache again"]
    cure = "delete it and its .json, then fill the cache again"
    if file_sha256(shard) != digest:
        return [f"is not what was written (its hash differs): {cure}"]
    wrong = []
    try:
        with safe_open(check_file(shard), "pt") as file:
            names = set(file.keys())
            for entry in entries:
                for name, (dtype, shape) in entry.tensors.items():
                    full = f"{entry.key}/{name}"
                    if full not in names:
                        wrong.append(f"{name} of {entry.id} is missing: {cure}")
                        continue
                    tensor = file.get_tensor(full)
                    if (_type(tensor), tuple(tensor.shape)) != (dtype, shape):
                        is_now = f"{_type(tensor)} {tuple(tensor.shape)}"
                        wrong.append(f"{name} of {entry.id} is {is_now}, not {dtype} {shape}: {cure}")
                    elif tensor.is_floating_point() and not tensor.isfinite().all():
                        wrong.append(f"{name} of {entry.id} holds values that are not numbers: {cure}")
    except (SafetensorError, OSError, ValueError) as error:
        return [f"cannot be opened ({error}): {cure}"]
    return wrong


def _read_about(path: Path) -> dict[str, object]:
    try:
        about = read_json(path)
        found, recipe = about["format"], dict(about["recipe"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not describe a cache ({error}): restore it or fill another folder") from None
    if found != FORMAT:
        raise ValueError(f"{path} is of format {found!r:.80}, not {FORMAT!r}: fill another folder")
    return recipe


def _read_index(path: Path) -> tuple[str, list[Entry]]:
    try:
        index = read_json(path)
        shard = path.with_suffix(".safetensors")
        entries = [
            Entry(row["id"], key, shard, {n: (dtype, tuple(shape)) for n, (dtype, shape) in row["tensors"].items()})
            for key, row in index["entries"].items()
        ]
        if not all(isinstance(text, str) for entry in entries for text in (entry.id, *entry.tensors)):
            raise TypeError("an id is no text")
        return str(index["sha256"]), entries
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path.name} is damaged ({error}): delete it and its shard, then fill again") from None


def _by_id(entries: Iterable[Entry]) -> list[tuple[str, str]]:
    return [(entry.id, entry.key) for entry in entries]


def _differing(found: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    wanted = json.loads(json.dumps(dict(wanted)))
    return sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))


def _type(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
