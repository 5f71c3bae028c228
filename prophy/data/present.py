"""Which entries of a cache belong to the present inputs: the clips asked for, and each worker's list of what it has."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from prophy.files import read_regular, some_of, visible, write_text
from prophy.schema import MOST_BYTES, parsed, read_json

CLIPS, PRESENT = "clips.txt", "present"


def expected_ids(folder: Path) -> list[str] | None:
    """Ids of the clips that should be in a cache; None where nobody wrote them down.

    Raises:
        ValueError: their file is damaged.
    """
    try:
        lines = read_regular(folder / CLIPS, MOST_BYTES).decode().split("\n")
        return [_text(parsed(line)) for line in lines if line]
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{folder / CLIPS} is damaged ({error}): fill the cache again") from None


def present_keys(folder: Path, entries: Iterable[tuple[str, str]]) -> dict[str, str]:
    """The key of each clip's present entry, by the clip's id.

    Args:
        folder: of the cache.
        entries: id and key of all that lie there. Without any list, in a cache of an older release, the only entry of a
            clip is the present one.

    Raises:
        ValueError: two lists, or no list and two entries, for one clip; or a list is damaged.
    """
    lists = visible(folder / PRESENT, "*.json")
    named = [pair for path in lists for pair in read_list(path).items()] if lists else list(entries)
    expected = expected_ids(folder)
    if expected is not None:
        asked = set(expected)
        named = [(clip_id, key) for clip_id, key in named if clip_id in asked]
    keys = dict(named)
    if twice := sorted({clip_id for clip_id, key in named if keys[clip_id] != key}):
        raise ValueError(
            f"{folder} holds {len(twice)} clips twice, before and after a change ({some_of(twice)}): run prophy cache "
            "fill again, all its workers"
        )
    return keys


def read_list(path: Path) -> dict[str, str]:
    """A worker's list: the key of each clip's entry; empty where there is none.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return {_text(clip_id): _text(key) for clip_id, key in dict(read_json(path)).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): run prophy cache fill again") from None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.80} is no text")
    return value


def write_list(path: Path, keys: Mapping[str, str]) -> None:
    """Write a worker's list."""
    path.parent.mkdir(exist_ok=True)
    write_text(path, json.dumps(dict(keys), indent=0) + "\n", shared=True)
