"""What comes from a visitor's browser, and may therefore be anything: their run ids, the page's link."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

OWN_RUNS_KEPT = 24


class Link(NamedTuple):
    """A run to open, an expert to show and a video frame to stand at, each None if the link does not say."""

    run: str | None
    expert: int | None
    frame: int | None


def link_of(query: Mapping[str, str]) -> Link:
    """Read ``?run=&expert=&frame=``. A number that is none is as if it were not there; the run is looked up later."""
    return Link(query.get("run") or None, _whole(query.get("expert")), _whole(query.get("frame")))


def own_ids(stored: object) -> list[str]:
    """The run ids in a browser's storage."""
    return [run_id for run_id in stored if isinstance(run_id, str)][:OWN_RUNS_KEPT] if isinstance(stored, list) else []


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 7 else None
