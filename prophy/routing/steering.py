"""Steering of the experts: mute, boost, invert, or force one on a region (fig. 8), and how much of the branch counts.

Values only, saved with the run.

Shapes: N tokens of a :class:`prophy.grid.TokenGrid`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from prophy.grid import TokenGrid

MAX_EXPERTS = 256  #: experts of one kind that can be steered; an id is a byte
MAX_REGIONS = 64
MAX_CELLS = 65_536  #: of all regions together, so that a steering stays a file of a megabyte
SCALE_LIMIT = 4.0
_MAX_SIDE = 4096  # rows, columns and latent frames that a region may name
_KINDS = ("semantic", "refinement")


class SteeringError(ValueError):
    """A steering that cannot be. The message is one line and names the cure."""


@dataclass(frozen=True)
class ForcedRegion:
    """An expert forced on the same cells of a span of latent frames.

    Attributes:
        expert: of the refinement block.
        first_frame: latent frame.
        last_frame: latent frame, inclusive.
        cells: (row, column) of token cells; kept sorted, each once.

    Raises:
        SteeringError: a field of the wrong type or range.
    """

    expert: int
    first_frame: int
    last_frame: int
    cells: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        _check_whole("a forced expert", self.expert, MAX_EXPERTS)
        _check_frames(self.first_frame, self.last_frame)
        cells = self.cells
        _require(isinstance(cells, tuple | list) and len(cells) > 0, "a forced region has no cells: paint at least one")
        _require(len(cells) <= MAX_CELLS, f"a forced region has {len(cells)} cells: use at most {MAX_CELLS}")
        for cell in cells:
            _require(isinstance(cell, tuple | list) and len(cell) == 2, "a cell must be a pair (row, column)")
            _check_whole("a cell's row", cell[0], _MAX_SIDE)
            _check_whole("a cell's column", cell[1], _MAX_SIDE)
        object.__setattr__(self, "cells", tuple(sorted({(row, column) for row, column in cells})))

    @classmethod
    def box(
        cls,
        grid: TokenGrid,
        expert: int,
        frames: tuple[int, int],
        left: float,
        top: float,
        right: float,
        bottom: float,
    ) -> ForcedRegion:
        """Every cell whose centre lies in a box; at least one row and column, those under the box's own centre.

        Args:
            grid: of the clip.
            expert: of the refinement block.
            frames: first and last latent frame.
            left, top, right, bottom: shares of the picture, 0 to 1.

        Raises:
            SteeringError: an empty or reversed box, or frames that the grid does not have.
        """
        return ForcedBox(expert, *frames, left, top, right, bottom).on(grid)

    def check(self, grid: TokenGrid) -> None:
        """Refuse frames and cells that the grid does not have.

        Raises:
            SteeringError: one line that names the range.
        """
        _require(
            self.last_frame < grid.frames,
            f"latent frame {self.last_frame} does not exist: this clip has {grid.frames}, 0 to {grid.frames - 1}",
        )
        outside = next((cell for cell in self.cells if cell[0] >= grid.height or cell[1] >= grid.width), None)
        _require(
            outside is None,
            f"cell {outside} lies outside this clip's {grid.height} rows and {grid.width} columns: paint inside",
        )


@dataclass(frozen=True)
class ForcedBox:
    """A forced region that does not know its grid yet; see :meth:`ForcedRegion.box`.

    Raises:
        SteeringError: an empty or reversed box, or fields of the wrong type or range.
    """

    expert: int
    first_frame: int
    last_frame: int
    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        _check_whole("a forced expert", self.expert, MAX_EXPERTS)
        _check_frames(self.first_frame, self.last_frame)
        for name in ("left", "top", "right", "bottom"):
            value = getattr(self, name)
            is_share = _is_number(value) and 0 <= value <= 1
            _require(is_share, f"{name}={_shown(value)} of a box must be a share from 0 to 1")
        for low, high in (("left", "right"), ("top", "bottom")):
            start, end = getattr(self, low), getattr(self, high)
            _require(start < end, f"the box is empty or reversed: {low}={start:g} must be below {high}={end:g}")

    def on(self, grid: TokenGrid) -> ForcedRegion:
        """The region that the box covers on a grid.

        Raises:
            SteeringError: frames that the grid does not have.
        """
        rows, columns = _covered(self.top, self.bottom, grid.height), _covered(self.left, self.right, grid.width)
        cells = tuple((row, column) for row in rows for column in columns)
        region = ForcedRegion(self.expert, self.first_frame, self.last_frame, cells)
        region.check(grid)
        return region


@dataclass(frozen=True)
class Steering:
    """What to do to the experts. The default does nothing.

    A scale of zero or more multiplies the expert's probability, and the others take the rest (0 mutes, 2 boosts); a
    negative one multiplies the router's logit (-1 inverts, fig. 8).

    Attributes:
        semantic: scale by semantic expert, -4 to 4; a 1 is left out.
        refinement: scale by refinement expert, -4 to 4; a 1 is left out.
        forced: regions on which one refinement expert acts alone, also when it is muted elsewhere; where two overlap
            the later one wins.
        strength: of the whole branch: what its residuals are multiplied with, 0 to 4 (ours). 0 is the backbone alone,
            with the routing still observed; 1 is exactly the branch as it is.

    Raises:
        SteeringError: a field of the wrong type, range or size.
    """

    semantic: Mapping[int, float] = field(default_factory=dict)
    refinement: Mapping[int, float] = field(default_factory=dict)
    forced: tuple[ForcedRegion, ...] = ()
    strength: float = 1.0

    def __post_init__(self) -> None:
        for kind in _KINDS:
            object.__setattr__(self, kind, _checked_scales(kind, getattr(self, kind)))
        strength = self.strength
        _require(
            _is_number(strength) and 0 <= strength <= SCALE_LIMIT,
            f"the strength of the branch must be a number from 0 to {SCALE_LIMIT:g}, not {_shown(strength)}",
        )
        object.__setattr__(self, "strength", float(strength))
        forced = self.forced
        is_right = isinstance(forced, tuple | list) and all(isinstance(region, ForcedRegion) for region in forced)
        _require(is_right, "forced must be a tuple of ForcedRegion")
        _require(len(forced) <= MAX_REGIONS, f"{len(forced)} forced regions: use at most {MAX_REGIONS}")
        cells = sum(len(region.cells) for region in forced)
        _require(cells <= MAX_CELLS, f"the forced regions have {cells} cells together: use at most {MAX_CELLS}")
        object.__setattr__(self, "forced", tuple(forced))

    def __hash__(self) -> int:
        return hash((tuple(self.semantic.items()), tuple(self.refinement.items()), self.forced, self.strength))

    def __reduce__(self) -> tuple:
        # a mapping proxy has no pickle
        return Steering, (dict(self.semantic), dict(self.refinement), self.forced, self.strength)

    @property
    def is_neutral(self) -> bool:
        """Whether it does nothing."""
        return self.strength == 1 and not (self.semantic or self.refinement or self.forced)

    def check(self, num_semantic: int, num_refinement: int, grid: TokenGrid) -> None:
        """Refuse what a model or a clip does not have, and a block left without an expert.

        Args:
            num_semantic: E_s of the model.
            num_refinement: E_r of the model.
            grid: of the clip.

        Raises:
            SteeringError: one line that names the cure.
        """
        sizes = {"semantic": num_semantic, "refinement": num_refinement}
        for kind, size in sizes.items():
            scales = getattr(self, kind)
            for expert in scales:
                _check_expert(kind, expert, size)
            muted = sum(scale == 0 for scale in scales.values())
            _require(muted < size, f"every {kind} expert is muted: leave at least one")
        for region in self.forced:
            _check_expert("refinement", region.expert, num_refinement)
            region.check(grid)

    def forced_experts(self, grid: TokenGrid) -> np.ndarray:
        """The expert forced on each token, -1 where it is free: int64 ``(N,)``.

        Raises:
            SteeringError: a region that the grid does not have.
        """
        experts = np.full(grid.shape, -1, np.int64)
        for region in self.forced:
            region.check(grid)
            rows, columns = np.array(region.cells).T
            experts[region.first_frame : region.last_frame + 1, rows, columns] = region.expert
        return experts.reshape(-1)

    def describe(self) -> list[str]:
        """One short line for each expert steered, each region and the branch's strength, for people."""
        lines = [
            f"{prefix}expert {expert} {_describe_scale(scale)}"
            for prefix, scales in (("semantic ", self.semantic), ("", self.refinement))
            for expert, scale in scales.items()
        ]
        for region in self.forced:
            count, first, last = len(region.cells), region.first_frame, region.last_frame
            span = f"latent frame {first}" if first == last else f"latent frames {first}–{last}"
            lines.append(f"expert {region.expert} forced on {count} cell{'s' if count > 1 else ''}, {span}")
        if self.strength != 1:
            lines.append(f"branch ×{self.strength:g}")
        return lines

    def to_json(self) -> dict[str, Any]:
        """A JSON object; parts that do nothing are left out, so that neutral is ``{}``."""
        document: dict[str, Any] = {}
        for kind in _KINDS:
            if scales := getattr(self, kind):
                document[kind] = {str(expert): scale for expert, scale in scales.items()}
        if self.forced:
            document["forced"] = [
                {
                    "expert": region.expert,
                    "first_frame": region.first_frame,
                    "last_frame": region.last_frame,
                    "cells": [list(cell) for cell in region.cells],
                }
                for region in self.forced
            ]
        if self.strength != 1:
            document["strength"] = self.strength
        return document

    @classmethod
    def from_json(cls, document: Any) -> Steering:
        """Read what :meth:`to_json` made, from anyone.

        Raises:
            SteeringError: anything else: unknown or missing keys, wrong types, ranges or sizes.
        """
        _check_keys("a steering", document, {*_KINDS, "forced", "strength"})
        scales = {kind: _scales_from_json(kind, document.get(kind, {})) for kind in _KINDS}
        regions = document.get("forced", [])
        _require(isinstance(regions, list), "forced must be a list of regions")
        _require(len(regions) <= MAX_REGIONS, f"{len(regions)} forced regions: use at most {MAX_REGIONS}")
        names = set(ForcedRegion.__dataclass_fields__)
        for region in regions:
            _check_keys("a forced region", region, names, required=names)
            _require(isinstance(region["cells"], list), "cells must be a list of pairs [row, column]")
        forced = tuple(ForcedRegion(**region) for region in regions)
        return cls(**scales, forced=forced, strength=document.get("strength", 1.0))


# --- the words of the command line ------------------------------------------------------------------------------------

_SCALE_WORDS = {"mute": 0.0, "boost": 2.0, "invert": -1.0}
_SCALE = re.compile(r"(?:(semantic|refinement):)?(\d{1,4})=(\S+)", re.ASCII)
_FORCE = re.compile(r"expert=(\d{1,4}),frames=(\d{1,4})(?:-(\d{1,4}))?,box=" + ":".join(4 * [r"([^:,]+)"]), re.ASCII)


def parse_scales(specs: Sequence[str]) -> Steering:
    """Scales from texts such as ``refinement:3=0``, ``semantic:5=invert`` or ``3=2`` (refinement).

    Raises:
        SteeringError: a text that is none, or an expert named twice.
    """
    scales: dict[str, dict[int, float]] = {kind: {} for kind in _KINDS}
    for spec in specs:
        match = _SCALE.fullmatch(spec)
        value = None if match is None else _SCALE_WORDS.get(match[3], _number(match[3]))
        if match is None or value is None:
            raise SteeringError(
                f"cannot read the steering {spec[:60]!r}: write expert=scale, such as refinement:3=0, "
                "semantic:5=invert or 3=2"
            )
        kind, expert = match[1] or "refinement", int(match[2])
        _require(expert not in scales[kind], f"{kind} expert {expert} is steered twice: give it one scale")
        scales[kind][expert] = value
    return Steering(scales["semantic"], scales["refinement"])


def parse_force(spec: str) -> ForcedBox:
    """A box from a text such as ``expert=2,frames=0-4,box=0.1:0.2:0.5:0.6`` (left, top, right, bottom).

    Raises:
        SteeringError: a text that is none, or an impossible box.
    """
    match = _FORCE.fullmatch(spec)
    sides = [] if match is None else [side for text in match.groups()[3:] if (side := _number(text)) is not None]
    if match is None or len(sides) < 4:
        raise SteeringError(
            f"cannot read the forced region {spec[:60]!r}: write it like expert=2,frames=0-4,box=0.1:0.2:0.5:0.6 "
            "(left, top, right and bottom as shares of the picture)"
        )
    return ForcedBox(int(match[1]), int(match[2]), int(match[3] or match[2]), *sides)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


# --- checks -----------------------------------------------------------------------------------------------------------


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise SteeringError(message)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _shown(value: Any) -> str:
    if _is_whole(value) and abs(value) > 10**9:
        return "a number that large"  # Python refuses to print one of thousands of digits
    return repr(value)[:40] if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"


def _check_whole(name: str, value: Any, limit: int) -> None:
    if not (_is_whole(value) and 0 <= value < limit):
        raise SteeringError(f"{name} must be a whole number from 0 to {limit - 1}, not {_shown(value)}")


def _check_frames(first: Any, last: Any) -> None:
    _check_whole("the first latent frame", first, _MAX_SIDE)
    _check_whole("the last latent frame", last, _MAX_SIDE)
    _require(first <= last, f"latent frames {first}-{last} are reversed: give the first one first")


def _check_expert(kind: str, expert: int, size: int) -> None:
    _require(expert < size, f"{kind} expert {expert} does not exist: this model has {size}, 0 to {size - 1}")


def _checked_scales(kind: str, scales: Any) -> Mapping[int, float]:
    _require(isinstance(scales, Mapping), f"{kind} must map experts to scales, such as {{3: 0}}, which mutes expert 3")
    _require(len(scales) <= MAX_EXPERTS, f"{len(scales)} {kind} experts: steer at most {MAX_EXPERTS}")
    for expert, scale in scales.items():
        _check_whole(f"a {kind} expert", expert, MAX_EXPERTS)
        _require(
            _is_number(scale) and -SCALE_LIMIT <= scale <= SCALE_LIMIT,
            f"the scale of {kind} expert {expert} must be a number from {-SCALE_LIMIT:g} to {SCALE_LIMIT:g}: "
            "0 mutes, 2 boosts, -1 inverts",
        )
    return MappingProxyType({expert: float(scales[expert]) for expert in sorted(scales) if scales[expert] != 1})


def _check_keys(name: str, document: Any, known: set[str], required: Set[str] = frozenset()) -> None:
    _require(isinstance(document, dict), f"{name} must be an object")
    for key in document:
        _require(key in known, f"{name} holds an unknown key {_shown(key)}: use {', '.join(sorted(known))}")
    _require(not required - document.keys(), f"{name} lacks {', '.join(sorted(required - document.keys()))}")


def _scales_from_json(kind: str, document: Any) -> dict[int, float]:
    _require(isinstance(document, dict), f"{kind} must be an object of scales by expert")
    _require(len(document) <= MAX_EXPERTS, f"{len(document)} {kind} experts: steer at most {MAX_EXPERTS}")
    for key in document:
        is_id = isinstance(key, str) and re.fullmatch(r"0|[1-9]\d{0,2}", key, re.ASCII) is not None
        _require(is_id, f"{kind} names an expert {_shown(key)}: use its number, 0 to {MAX_EXPERTS - 1}")
    return {int(key): scale for key, scale in document.items()}


def _covered(low: float, high: float, size: int) -> list[int]:
    """Cells of one axis whose centres lie in [low, high); the one under the middle if there is none."""
    inside = [i for i in range(size) if low <= (i + 0.5) / size < high]
    return inside or [min(size - 1, int((low + high) / 2 * size))]


def _describe_scale(scale: float) -> str:
    if scale == 0:
        return "muted"
    if scale == -1:
        return "inverted"
    return f"×{scale:g}" if scale > 0 else f"inverted ×{-scale:g}"
