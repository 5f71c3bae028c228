"""What the worlds draw, as a note beside clips that are kept: a later release may draw the same seeds otherwise."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from prophy.files import sha256
from prophy.worlds.sample import WorldClip
from prophy.worlds.stage import Stage
from prophy.worlds.world_set import WorldSet

log = logging.getLogger(__name__)

_SCANNED = 128  # seeds among which every scene, colour and setting is looked for; 64 pixels high they take a second
_WORDINGS = 4  # of each caption


@dataclass(frozen=True)
class Drawn:
    """Digests of a few clips, which together show every scene of a set.

    Attributes:
        scenes: of what they show, before anything is simulated.
        captions: of their wordings.
        pictures: of their frames and masks. Machines differ in the last digit of a sine, and a fluid makes that grow:
            it compares on like machines alone.
        machine: what that last digit depends on: processor, numpy and OpenCV.
    """

    scenes: str
    captions: str
    pictures: str
    machine: str

    @classmethod
    def by(cls, *sets: WorldSet) -> Drawn:
        """What this release draws of sets that differ in their clocks alone; seed ``i`` is of set ``i % len(sets)``.

        Some twenty small clips are rendered, once in a process, and one of the sets' own size.
        """
        return _drawn(sets)

    @classmethod
    def from_record(cls, record: Any) -> Drawn | None:
        """The inverse of :meth:`record`; None of None, where an older release noted nothing.

        Raises:
            ValueError: anything else.
        """
        if record is None:
            return None
        names = {one.name for one in fields(cls)}
        told = isinstance(record, dict) and record.keys() == names and all(isinstance(v, str) for v in record.values())
        if not told:
            raise ValueError("its note of what the worlds draw is damaged")
        return cls(**record)

    def record(self) -> dict[str, str]:
        """Plain values, as JSON gives them back."""
        return asdict(self)

    def differences(self, before: Drawn, *, captions: bool = True) -> list[str]:
        """What is drawn otherwise than ``before``; pictures of another kind of machine are not compared.

        Args:
            before: as it was noted.
            captions: False where none are kept.
        """
        compared = {"scenes": True, "captions": captions, "pictures": self.comparable(before)}
        now, then = self.record(), before.record()
        return [name for name, is_compared in compared.items() if is_compared and now[name] != then[name]]

    def comparable(self, before: Drawn) -> bool:
        """Whether pictures can be compared to the bit."""
        return self.machine == before.machine


def refuse_redrawn(folder: Path, before: Drawn | None, *sets: WorldSet, captions: bool = True) -> None:
    """Refuse to go on with kept clips that this release's worlds draw otherwise.

    Args:
        folder: that keeps them.
        before: as it was noted there; None, of an older release: nothing is compared.
        sets: see :meth:`Drawn.by`.
        captions: False where none are kept.

    Raises:
        ValueError: scenes, captions or pictures are others now. One line.
    """
    if before is None:
        return
    now = Drawn.by(*sets)
    if others := now.differences(before, captions=captions):
        raise ValueError(
            f"{folder} holds clips whose {' and '.join(others)} this release's worlds make otherwise: delete it to "
            "make them again, or choose another folder"
        )
    if not now.comparable(before):
        log.warning(
            "%s was rendered on another kind of machine, or by another numpy or OpenCV: its pictures are not compared",
            folder,
        )


@cache
def _drawn(sets: tuple[WorldSet, ...]) -> Drawn:
    first = sets[0]
    seeds = list(_showing_all(first))
    captions = json.dumps([first.captions(seed, _WORDINGS) for seed in seeds])
    scenarios = [first.scenario(seed) for seed in seeds]
    scenes = json.dumps(
        [[one.setting, [[e.phenomenon, e.variant, e.colours, e.place] for e in one.events]] for one in scenarios]
    )
    pictures = hashlib.sha256()
    for seed in seeds:
        pictures.update(_seen(replace(sets[seed % len(sets)], stage=Stage()).clip(seed)))
    if first.stage != Stage():  # a large one shows fluids more finely, and costs too much for all of them
        pictures.update(_seen(first.clip(seeds[0])))
    return Drawn(sha256(scenes)[:16], sha256(captions)[:16], pictures.hexdigest()[:16], _machine())


def _showing_all(worlds: WorldSet) -> Iterator[int]:
    """The seeds that show a scene, a colour or a setting for the first time."""
    seen: set[tuple[str, ...]] = set()
    for seed in range(_SCANNED):
        scenario = worlds.scenario(seed)
        shown = {(event.phenomenon, event.variant) for event in scenario.events} | {(scenario.setting,)}
        shown |= {(colour,) for event in scenario.events for colour in event.colours}
        if not shown <= seen:
            seen |= shown
            yield seed


def _seen(clip: WorldClip) -> bytes:
    masks = (name.encode() + np.packbits(mask).tobytes() for name, mask in clip.masks.items())
    return clip.frames.tobytes() + b"".join(masks)


def _machine() -> str:
    instructions = np.show_config(mode="dicts")["SIMD Extensions"]
    own = [platform.machine(), np.__version__, instructions, cv2.__version__, cv2.getCPUFeaturesLine()]
    return sha256(json.dumps(own))[:16]
