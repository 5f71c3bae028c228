"""Memory profiles: where the parts of a pipeline wait while others compute (no torch).

A profile trades speed for memory: ``all`` keeps everything on the accelerator, ``model`` one part at a time, ``group``
one block at a time, ``sequential`` one layer at a time; each with the autoencoder decoding in tiles or not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

AUTO = "auto"  #: in a profile's place: the fastest that fits


class OffloadMode(StrEnum):
    """What is on the accelerator, from fast to small."""

    ALL = "all"
    MODEL = "model"
    GROUP = "group"
    SEQUENTIAL = "sequential"


class Stage(StrEnum):
    """The parts of a generation that need memory of their own."""

    TEXT = "text encoding"
    BRANCH = "branch"
    DENOISING = "denoising"
    DECODING = "decoding"


@dataclass(frozen=True)
class Profile:
    """A mode, and whether the autoencoder decodes in tiles. As a string: ``group`` or ``group+tiling``."""

    mode: OffloadMode
    tiling: bool = False

    def __str__(self) -> str:
        return f"{self.mode}+tiling" if self.tiling else str(self.mode)

    @classmethod
    def parse(cls, name: str) -> Profile:
        """Read what ``str`` writes.

        Raises:
            ValueError: not a profile; the message lists them.
        """
        for profile in PROFILES:
            if str(profile) == name:
                return profile
        raise ValueError(f"no memory profile {name!r}: use one of {', '.join(map(str, PROFILES))}")


#: Every profile, from fast to small.
PROFILES = tuple(Profile(mode, tiling) for mode in OffloadMode for tiling in (False, True))


def next_profile(profile: Profile, stage: Stage = Stage.DENOISING) -> Profile | None:
    """The profile to try once memory ran out during a stage: one that needs less there. None: none does."""
    if stage is Stage.DECODING and not profile.tiling:
        return replace(profile, tiling=True)
    later = list(OffloadMode)[list(OffloadMode).index(profile.mode) + 1 :]
    return replace(profile, mode=later[0]) if later else None
