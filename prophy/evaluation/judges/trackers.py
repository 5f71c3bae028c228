"""From pixels to law errors: for every scene of the worlds, a tracker that knows the prompt and looks at the frames.

What a tracker may know: which scene the prompt asks for, its colours, its place, the setting, and the stage's geometry
(where the ground is, where a mirror stands). It never sees the simulator's state, so real renders and generated clips
are measured alike. A track that fails raises :class:`prophy.evaluation.judges.laws.TrackLost`; the caller counts it.

Lengths are stage units, so that tolerances mean the same at every size. Motion is looked at in steps of an eighth of a
second, and processes that fill a clip in steps of a sixteenth of it: they mean the same at every rate and length.

Shapes: F frames, H rows, W columns of the event's part of the stage; positions are (x, y) on the stage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import cv2
import numpy as np

from prophy.evaluation.judges.laws import (
    Line,
    TrackLost,
    backwards,
    flights,
    impact,
    inconstancy,
    line,
    oscillation,
    outside,
    speeding_up,
    unsteady,
)
from prophy.worlds import COLOURS, Placed, Stage
from prophy.worlds.dynamics import PouringTap, SloshingTank
from prophy.worlds.optics import GlassBeam, RippleTank
from prophy.worlds.painter import SUPERSAMPLE, background
from prophy.worlds.stage import BACKGROUNDS, FLOOR, UNITS, Region
from prophy.worlds.thermodynamics import BoilingPot, FreezingTank

_LEAST_AREA = 6.0  # square units that an object covers, at least
_SEEN = 0.6  # share of the frames in which it must be found
_ROWS = 128  # a larger clip is averaged down to so many rows: enough for every law, and quick
_LEAP = 1.0  # units: a level that changes against its way by more, from one frame to the next, leaps
_CONTACT = 0.07  # seconds for which a bouncing ball is flattened, so that its middle does not fly freely


@dataclass(frozen=True)
class Law:
    """One law that a scene obeys.

    Attributes:
        name: what is compared.
        tolerance: the largest error at which the law counts as obeyed; on real renders nearly all clips lie below it.
        error: what the error is a share of.
    """

    name: str
    tolerance: float
    error: str


@dataclass(frozen=True)
class View:
    """What a tracker sees.

    Attributes:
        frames_FHWC: float32 RGB, 0 to 255, of the region only.
        backdrop_HWC: the setting without anything on it.
        region: of the stage.
        colours: RGB of the event's colours, in the prompt's order.
        fps: frames a second.
    """

    frames_FHWC: np.ndarray
    backdrop_HWC: np.ndarray
    region: Region
    colours: tuple[tuple[int, int, int], ...]
    fps: int

    @property
    def times(self) -> np.ndarray:
        """Seconds of the frames, ``(F,)``."""
        return np.arange(len(self.frames_FHWC)) / self.fps

    @property
    def pixel(self) -> float:
        """Height of a row, stage units."""
        return UNITS / self.frames_FHWC.shape[1]

    @property
    def pixel_across(self) -> float:
        """Width of a column, stage units: that of a row but for rounding where the clip was averaged down."""
        return self.region.width / self.frames_FHWC.shape[2]

    @property
    def cell(self) -> float:
        """Area of a pixel, square units."""
        return self.pixel * self.pixel_across

    @property
    def columns(self) -> np.ndarray:
        """Middle of each column on the stage."""
        return self.region.left + (np.arange(self.frames_FHWC.shape[2]) + 0.5) * self.pixel_across

    def rows(self, top: float, bottom: float) -> slice:
        """Rows whose middles lie between two heights, in units from the top."""
        return slice(*(max(0, round(y / self.pixel)) for y in (top, bottom)))

    def between(self, left: float, right: float) -> slice:
        """Columns whose middles lie between two x of the stage."""
        inside = np.flatnonzero((self.columns > left) & (self.columns < right))
        return slice(int(inside[0]), int(inside[-1]) + 1)

    def odd(self, units: float) -> int:
        """The odd number of pixels nearest to a length: the size of a filter."""
        return 2 * round((units / self.pixel - 1) / 2) + 1

    def frames(self, seconds: float) -> int:
        """The number of frames nearest to a time, at least one."""
        return max(1, round(seconds * self.fps))

    @property
    def apart(self) -> int:
        """Frames from one look at a motion to the next: an eighth of a second."""
        return self.frames(1 / 8)

    @property
    def stride(self) -> int:
        """Frames from one look at a process that fills the clip to the next: a sixteenth of it."""
        return max(1, round((len(self.frames_FHWC) - 1) / 16))

    def looks(self, values_F: np.ndarray) -> np.ndarray:
        """A series as a process is looked at: means of what is seen in each stride."""
        count = -(-len(values_F) // self.stride)
        padded = np.full(count * self.stride, np.nan)
        padded[: len(values_F)] = values_F
        rows = padded.reshape(count, self.stride)
        seen = np.isfinite(rows)
        return np.where(seen.any(1), np.where(seen, rows, 0).sum(1) / np.maximum(seen.sum(1), 1), np.nan)

    def matte(self, which: int = 0, full: float = 0.62) -> np.ndarray:
        """How much of each pixel is of one of the event's colours, float32 ``(F, H, W)`` in [0, 1].

        By chroma, which shading and shadows leave alone: a dark rim has ``full`` of the colour's chroma. Pixels nearer
        to another of the event's colours are not counted.
        """
        excess = _chroma(self.frames_FHWC) - _chroma(self.backdrop_HWC)
        wanted = _chroma(np.array(self.colours[which], np.float32))
        strength = excess @ wanted / (wanted @ wanted)
        alpha = np.clip((strength / full - 0.15) / 0.85, 0, 1)  # the walls' own tints are below that
        length = np.linalg.norm(excess, axis=-1) + 1e-6
        cosine = excess @ wanted / np.linalg.norm(wanted) / length
        alpha = np.where(cosine > 0.7, alpha, 0)
        for other in range(len(self.colours)):
            if other != which:
                rival = _chroma(np.array(self.colours[other], np.float32))
                alpha = np.where(excess @ rival / np.linalg.norm(rival) / length > cosine, 0, alpha)
        return alpha.astype(np.float32)


@dataclass(frozen=True)
class Blob:
    """An object followed over the frames; NaN where it is not seen.

    Attributes:
        position_F2: its centroid on the stage.
        area_F: square units it covers.
        whole_F: whether all of it is in the region: it does not touch an edge, or is as large there as elsewhere.
        row_F: units of its longest row.
    """

    position_F2: np.ndarray
    area_F: np.ndarray
    whole_F: np.ndarray
    row_F: np.ndarray

    def coordinate(self, axis: int) -> np.ndarray:
        """x (0) or y (1), NaN where the object is not wholly seen."""
        return np.where(self.whole_F, self.position_F2[:, axis], np.nan)

    @property
    def size(self) -> np.ndarray:
        """The area, NaN where the object is not wholly seen."""
        return np.where(self.whole_F, self.area_F, np.nan)

    def x_of_disc(self, region: Region) -> np.ndarray:
        """x of a disc: also where one of the region's sides cuts it, from the row through its middle."""
        area = float(np.nanmedian(self.size)) if np.isfinite(self.size).any() else np.nan
        radius = np.sqrt(area / np.pi)
        left = self.position_F2[:, 0] < region.centre
        cut = np.where(left, region.left + self.row_F - radius, region.right - self.row_F + radius)
        return np.where(self.whole_F, self.position_F2[:, 0], np.where(self.area_F > 0.25 * area, cut, np.nan))


Tracker = Callable[[View], dict[str, float]]

#: (phenomenon, variant) -> its laws, and what measures them
LAWS: dict[tuple[str, str], tuple[Law, ...]] = {}
_TRACKERS: dict[tuple[str, str], Tracker] = {}


def tracker(phenomenon: str, variant: str, *laws: Law) -> Callable[[Tracker], Tracker]:
    """Register what measures a scene's laws."""

    def register(function: Tracker) -> Tracker:
        LAWS[phenomenon, variant], _TRACKERS[phenomenon, variant] = laws, function
        return function

    return register


def law_errors(frames_FHWC: np.ndarray, event: Placed, setting: str, stage: Stage = Stage()) -> dict[str, float]:
    """The law errors of one event of a clip, by law; 0 is lawful.

    Args:
        frames_FHWC: uint8, a whole clip.
        event: what the prompt asks for, and where.
        setting: of the stage.
        stage: size, length and rate of the clip.

    Raises:
        TrackLost: the event cannot be followed, or does not happen.
        ValueError: frames of another size, or a scene without a tracker.
    """
    key = (event.phenomenon, event.variant)
    if key not in _TRACKERS:
        raise ValueError(f"no tracker follows {event.phenomenon} ({event.variant}): use one of {sorted(_TRACKERS)}")
    view = view_of(frames_FHWC, event, setting, stage)
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = _TRACKERS[key](view)
    if errors.keys() != {law.name for law in LAWS[key]}:
        raise ValueError(f"the tracker of {event.variant} measures {sorted(errors)}: register just these")
    return errors


def obeyed(frames_FHWC: np.ndarray, event: Placed, setting: str, stage: Stage = Stage()) -> dict[str, bool]:
    """Whether one event of a clip obeys each of its laws; one that cannot be followed obeys none.

    Args:
        frames_FHWC, event, setting, stage: as for :func:`law_errors`, which raises the same ``ValueError``.
    """
    try:
        errors = law_errors(frames_FHWC, event, setting, stage)
    except TrackLost:
        errors = {}
    laws = LAWS[event.phenomenon, event.variant]
    return {law.name: errors.get(law.name, np.inf) <= law.tolerance for law in laws}  # not a number is not obeyed


def view_of(frames_FHWC: np.ndarray, event: Placed, setting: str, stage: Stage = Stage()) -> View:
    """The part of a clip in which an event takes place.

    Raises:
        ValueError: frames of another size, or an unknown setting.
    """
    if frames_FHWC.shape != (stage.frames, stage.height, stage.width, 3) or frames_FHWC.dtype != np.uint8:
        raise ValueError(
            f"a clip of {frames_FHWC.dtype} {frames_FHWC.shape} is not uint8"
            f" {stage.frames}×{stage.height}×{stage.width}×3"
        )
    if setting not in BACKGROUNDS:
        raise ValueError(f"unknown setting {setting!r}: use one of {', '.join(BACKGROUNDS)}")
    region = stage.region(event.place)
    columns = stage.columns(region)
    backdrop = background(setting, stage)[:, columns.start * SUPERSAMPLE : columns.stop * SUPERSAMPLE]
    width, rows = columns.stop - columns.start, min(stage.height, _ROWS)
    size = (round(width * rows / stage.height), rows)
    frames = frames_FHWC[:, :, columns].astype(np.float32)
    if rows < stage.height:
        frames = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames])
    backdrop = cv2.resize(backdrop, size, interpolation=cv2.INTER_AREA)
    return View(frames, backdrop, region, tuple(COLOURS[name] for name in event.colours), stage.fps)


# --- following --------------------------------------------------------------------------------------------------------


def follow(view: View, alpha_FHW: np.ndarray, gap: float = 5) -> Blob:
    """Follow the largest connected patch of a matte.

    Args:
        view: what the matte is of.
        alpha_FHW: of :meth:`View.matte`.
        gap: dark or bright holes up to this many units wide are filled, such as a ball's highlight.

    Raises:
        TrackLost: it is seen in too few frames.
    """
    frames, height, width = alpha_FHW.shape
    position, area, whole = np.full((frames, 2), np.nan), np.full(frames, np.nan), np.zeros(frames, bool)
    longest = np.full(frames, np.nan)
    hole = view.odd(gap)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (hole, hole))
    rim = np.ones((2 * round(1 / view.pixel) + 1,) * 2, np.uint8)
    ys, xs = np.mgrid[:height, :width] + 0.5
    for f in range(frames):
        padded = np.pad(alpha_FHW[f], hole)  # or closing would fill what lies between an object and the edge
        alpha = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, kernel)[hole:-hole, hole:-hole]
        count, names, stats, _ = cv2.connectedComponentsWithStats((alpha > 0.4).astype(np.uint8), connectivity=4)
        if count < 2:
            continue
        best = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
        weight = alpha * cv2.dilate((names == best).astype(np.uint8), rim)
        cover = weight.sum()
        if cover * view.cell < _LEAST_AREA:
            continue
        area[f] = cover * view.cell
        longest[f] = weight.sum(1).max() * view.pixel_across
        position[f] = (
            view.region.left + (weight * xs).sum() / cover * view.pixel_across,
            (weight * ys).sum() / cover * view.pixel,
        )
        x, y, w, h = stats[best, :4]
        whole[f] = x > 0 and y > 0 and x + w < width and y + h < height
    if np.isfinite(area).mean() < _SEEN:
        raise TrackLost(f"seen in {int(np.isfinite(area).sum())} of {frames} frames")
    return Blob(position, area, whole | (area > 0.98 * np.nanmedian(area)), longest)


def row_centres(view: View, alpha_FHW: np.ndarray, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
    """Of each row of the mean over frames, where the matte lies: y, and x from the left of the view.

    Rows at the ends, and those that hold less than the others, are left out: a cut or a lamp would pull them aside.
    """
    part = alpha_FHW.mean(0)[rows, columns]
    weight = part.sum(1)
    y = np.arange(rows.start, rows.start + len(part)) + 0.5
    x = columns.start + (part * (np.arange(part.shape[1]) + 0.5)).sum(1) / np.maximum(weight, 1e-9)
    held = weight[weight * view.pixel_across > 0.5]
    kept = np.flatnonzero((weight > 0.75 * np.median(held)) & (weight < 1.4 * np.median(held))) if len(held) else []
    kept = kept[round(3 / view.pixel) : -round(2 / view.pixel)]
    return y[kept] * view.pixel, x[kept] * view.pixel_across


def moved(values_F: np.ndarray, least: float, what: str) -> None:
    """Refuse what stands still.

    Raises:
        TrackLost: its range is below ``least``.
    """
    spread = np.nanmax(values_F) - np.nanmin(values_F) if np.isfinite(values_F).any() else 0.0
    if spread < least:
        raise TrackLost(f"{what} does not change ({spread:.1f})")


def _chroma(rgb: np.ndarray) -> np.ndarray:
    return rgb - rgb.mean(-1, keepdims=True)


# --- dynamics ---------------------------------------------------------------------------------------------------------


@tracker(
    "collision",
    "balls",
    Law("momentum", 0.15, "the sum of both momenta before"),
    Law("energy", 0.2, "the energy before, gains only"),
    Law("uniform motion", 0.05, "the distance travelled"),
    Law("size", 0.1, "the mean area"),
)
def _balls(view: View) -> dict[str, float]:
    balls = [follow(view, view.matte(which)) for which in range(2)]
    x = [ball.x_of_disc(view.region) for ball in balls]
    gap = np.abs(x[1] - x[0])
    contact = np.zeros(len(gap), bool)
    if np.isfinite(gap).any():
        contact[max(0, int(np.nanargmin(gap)) - view.apart) : int(np.nanargmin(gap)) + view.apart + 1] = True
    sizes = [np.where(contact, np.nan, ball.size) for ball in balls]
    masses = tuple(float(np.nanmedian(size)) for size in sizes)  # a disc's mass grows as its area
    result = impact(view.times, x[0], x[1], masses, view.apart - 1)
    return {
        "momentum": result.momentum_error,
        "energy": result.energy_gain,
        "uniform motion": result.unsteadiness,
        "size": max(inconstancy(size) for size in sizes),
    }


@tracker(
    "elastic_motion",
    "ball",
    Law("constant gravity", 0.03, "the height of the flight"),
    Law("no energy from nothing", 0.02, "the speed before the bounce"),
    Law("size", 0.1, "the mean area"),
)
def _bouncing(view: View) -> dict[str, float]:
    ball = follow(view, view.matte())
    y = ball.coordinate(1)
    moved(y, 4.0, "the ball's height")
    fall = flights(view.times, y, _CONTACT)
    if not fall.restitutions:
        raise TrackLost("the ball never bounces")
    return {
        "constant gravity": fall.residual / float(np.nanmax(y) - np.nanmin(y)),
        "no energy from nothing": max(0.0, max(fall.restitutions) - 1),
        "size": inconstancy(ball.size),
    }


@tracker(
    "elastic_motion",
    "spring",
    Law("one period", 0.05, "the amplitude"),
    Law("straight up and down", 0.05, "the amplitude"),
    Law("size", 0.1, "the mean area"),
)
def _spring(view: View) -> dict[str, float]:
    block = follow(view, view.matte())
    y = block.coordinate(1)
    moved(y, 4.0, "the block's height")
    swing = oscillation(view.times, y)
    return {
        "one period": swing.residual / swing.amplitude,
        "straight up and down": float(np.nanstd(block.coordinate(0))) / swing.amplitude,
        "size": inconstancy(block.size),
    }


@tracker(
    "liquid_motion",
    "slosh",
    Law("volume", 0.05, "the mean area"),
    Law("one period", 0.15, "the amplitude"),
)
def _sloshing(view: View) -> dict[str, float]:
    tank = SloshingTank.vessel(view.region)
    alpha = _liquid(view)[:, view.rows(0, FLOOR), view.between(tank.left + 1, tank.right - 1)]
    level_FW = alpha.sum(1) * view.pixel
    if np.median(level_FW) < 2:
        raise TrackLost("there is no liquid in the tank")
    across = np.linspace(-1, 1, level_FW.shape[1])
    tilt = level_FW @ (across - across.mean()) / np.square(across - across.mean()).sum()
    moved(tilt, 1.5, "the surface's tilt")
    swing = oscillation(view.times, tilt)
    return {"volume": inconstancy(level_FW.mean(1)), "one period": swing.residual / swing.amplitude}


@tracker(
    "liquid_motion",
    "pour",
    Law("never less", 0.05, "the rise"),
    Law("constant inflow", 0.05, "the rise"),
)
def _pouring(view: View) -> dict[str, float]:
    glass = PouringTap.vessel(view.region)
    aside = np.abs(view.columns - glass.centre)
    beside = (aside > 5.0) & (aside < glass.width / 2 - 1)  # the stream itself is higher than the level
    level = _liquid(view)[:, view.rows(0, FLOOR)][:, :, beside].mean(2).sum(1) * view.pixel
    moved(level, 3.0, "the level")
    low, high = level.min(), level.max()
    rising = (level > low + 0.7) & (level < high - 0.7)
    return {
        "never less": backwards(view.looks(level)),
        "constant inflow": unsteady(view.times, np.where(rising, level, np.nan), _LEAP),
    }


def _liquid(view: View) -> np.ndarray:
    """The matte of a liquid, whose bright surface counts as it does."""
    alpha = view.matte(full=0.6)
    kernel = np.ones((view.odd(3), 1), np.uint8)
    return np.stack([cv2.morphologyEx(frame, cv2.MORPH_CLOSE, kernel) for frame in alpha])


@tracker(
    "gas_motion",
    "smoke",
    Law("moves upwards", 0.2, "the frames"),
    Law("leaves the chimney", 0.25, "the plume's height"),
)
def _smoke(view: View) -> dict[str, float]:
    alpha = view.matte(full=0.75)[:, view.rows(0, FLOOR - 16)]  # above the mouth
    mass = alpha.sum((1, 2)) * view.cell
    if np.median(mass) < 12:
        raise TrackLost("no smoke above the chimney")
    share = np.cumsum(alpha.sum(2)[:, ::-1], 1) * view.cell / np.maximum(mass, 1e-6)[:, None]  # from the mouth upwards
    front = (share < 0.95).sum(1) * view.pixel
    foot = (share < 0.05).sum(1) * view.pixel
    moved(front, 2.0, "the plume's height")
    return {
        "moves upwards": float(np.mean(_vertical_flow(view, alpha) >= 0)),
        "leaves the chimney": float(np.mean(foot) / np.mean(front)),
    }


def _vertical_flow(view: View, alpha_FHW: np.ndarray) -> np.ndarray:
    """Mean vertical motion of a density from look to look, pixels, weighted by the density."""
    pictures = (255 * alpha_FHW[:: view.apart]).astype(np.uint8)
    means = []
    for before, after in pairwise(pictures):
        flow = cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 2, view.odd(11), 3, 5, 1.1, 0)
        means.append((flow[..., 1] * before).sum() / max(float(before.sum()), 1e-6))
    return np.array(means)


@tracker(
    "deformation",
    "press",
    Law("area", 0.06, "the mean area"),
    Law("only flatter", 0.1, "the whole flattening"),
    Law("only wider", 0.1, "the whole widening"),
)
def _press(view: View) -> dict[str, float]:
    clay = follow(view, view.matte(), gap=3)
    rows = view.matte().max(2)
    height = np.where(rows > 0.4, rows, 0).sum(1) * view.pixel
    moved(height, 3.0, "the clay's height")
    width = clay.area_F / np.maximum(height, 1)
    return {
        "area": inconstancy(clay.area_F),
        "only flatter": backwards(view.looks(-height)),
        "only wider": backwards(view.looks(width)),
    }


@tracker(
    "rigid_body_motion",
    "wheel",
    Law("uniform motion", 0.03, "the distance travelled"),
    Law("size", 0.1, "the mean area"),
)
def _wheel(view: View) -> dict[str, float]:
    wheel = follow(view, view.matte(full=0.4), gap=9)
    x = wheel.coordinate(0)
    moved(x, 4.0, "the wheel's place")
    return {"uniform motion": unsteady(view.times, x), "size": inconstancy(wheel.size)}


@tracker(
    "rigid_body_motion",
    "crate",
    Law("constant gravity", 0.05, "the height of the fall"),
    Law("size", 0.1, "the mean area"),
)
def _crate(view: View) -> dict[str, float]:
    crate = follow(view, view.matte())
    y = crate.coordinate(1)
    moved(y, 4.0, "the crate's height")
    half_diagonal = np.sqrt(np.nanmedian(crate.area_F) / 2)
    free = crate.position_F2[:, 1] + half_diagonal < FLOOR - 1  # a turning crate may touch from here on
    landed = np.flatnonzero(~free)
    flight = np.where(np.arange(len(y)) < (landed[0] if len(landed) else len(y)), y, np.nan)
    fall = flights(view.times, flight)
    return {
        "constant gravity": fall.residual / float(np.nanmax(flight) - np.nanmin(flight)),
        "size": inconstancy(crate.size),
    }


# --- thermodynamics ---------------------------------------------------------------------------------------------------


@tracker(
    "melting",
    "block",
    Law("the solid only shrinks", 0.05, "the whole loss"),
    Law("the puddle only grows", 0.1, "the whole growth"),
)
def _melting(view: View) -> dict[str, float]:
    alpha = view.matte()
    solid = alpha[:, view.rows(0, FLOOR - 1)].sum((1, 2)) * view.cell
    if solid[0] < _LEAST_AREA:
        raise TrackLost("there is no block")
    moved(solid / solid.max(), 0.2, "the block's area, as a share,")
    puddle = alpha[:, view.rows(FLOOR - 1, FLOOR + 4)].max(1).sum(1) * view.pixel_across
    moved(puddle, 2.0, "the puddle's width")
    return {
        "the solid only shrinks": backwards(view.looks(-solid)),
        "the puddle only grows": backwards(view.looks(puddle)),
    }


@tracker("solidification", "freeze", Law("the front only advances", 0.05, "the whole advance"))
def _freezing(view: View) -> dict[str, float]:
    tank = FreezingTank.vessel(view.region)
    columns = view.between(tank.left + 1, tank.right - 1)
    liquid = view.matte(full=0.7)[:, view.rows(0, FLOOR), columns].mean(2).sum(1) * view.pixel
    moved(liquid, 4.0, "the liquid")
    return {"the front only advances": backwards(view.looks(-liquid))}


@tracker(
    "vaporization",
    "boil",
    Law("the level only sinks", 0.2, "the whole loss"),
    Law("constant rate", 0.06, "the whole loss"),
)
def _boiling(view: View) -> dict[str, float]:
    pot = BoilingPot.vessel(view.region)
    alpha = view.matte(full=0.6)[:, view.rows(0, FLOOR - 4), view.between(pot.left + 1, pot.right - 1)]
    level = np.array([_fill_height(frame) for frame in alpha]) * view.pixel
    moved(level, 2.0, "the level")
    return {"the level only sinks": backwards(view.looks(-level)), "constant rate": unsteady(view.times, -level, _LEAP)}


def _fill_height(alpha_HW: np.ndarray) -> float:
    """Rows of liquid beneath its surface: of each column the highest covered row, whatever bubbles are below."""
    covered = np.maximum.accumulate(np.where(alpha_HW < 0.4, 0, alpha_HW), axis=0)
    return float(np.percentile(covered.sum(0), 75))


@tracker("liquefaction", "condense", Law("drops only grow", 0.12, "the whole growth"))
def _condensing(view: View) -> dict[str, float]:
    alpha = view.matte()
    area = alpha[:, view.rows(14, FLOOR)].sum((1, 2)) * view.cell
    moved(area, 8.0, "the drops' area")
    falling = alpha[:, view.rows(26, FLOOR)].sum((1, 2)) * view.cell > 0.1 * np.maximum(area, 1)
    hanging = np.arange(len(area)) < (np.flatnonzero(falling)[0] if falling.any() else len(area))
    return {"drops only grow": backwards(view.looks(np.where(hanging, area, np.nan)))}


@tracker(
    "combustion",
    "candle",
    Law("stays lit", 0.0, "the frames"),
    Law("the wax only sinks", 0.3, "the whole loss"),
)
def _candle(view: View) -> dict[str, float]:
    half = 4.5 * view.region.scale
    columns = view.between(view.region.centre - half, view.region.centre + half)
    frames = view.frames_FHWC[:, :, columns]
    foot = np.median(frames[:, view.rows(FLOOR - 7, FLOOR - 3)], axis=(0, 1))
    wall = view.backdrop_HWC[:, columns]
    contrast = np.linalg.norm(foot - wall[view.rows(FLOOR - 5, FLOOR - 4)][0], axis=-1).mean()
    if contrast < 25:
        raise TrackLost("there is no candle")
    unlike = np.linalg.norm(frames - foot, axis=-1).mean(2) / contrast  # 0 inside the wax
    wax = np.clip(1.6 - 3 * unlike[:, view.rows(0, FLOOR - 3)][:, ::-1], 0, 1)
    height = np.array([_run_of(row) for row in wax]) * view.pixel + 3
    if np.median(height) < 5:
        raise TrackLost("there is no candle")
    moved(height, 0.8, "the candle's height")
    flame = _flame(view)
    tops = FLOOR - height - 2  # clear of the wax, which may have a flame's colours
    lit = [flame[f, view.rows(top - 12, top)].sum() * view.cell > 4 for f, top in enumerate(tops)]
    return {"stays lit": float(1 - np.mean(lit)), "the wax only sinks": backwards(view.looks(-height))}


def _run_of(values: np.ndarray) -> float:
    """Length of the run of ones at the beginning, with what the first lower value adds."""
    total = 0.0
    for value in values:
        total += float(value)
        if value < 0.6:
            break
    return total


@tracker("combustion", "logs", Law("stays lit", 0.0, "the frames"), Law("burns steadily", 0.5, "the mean area"))
def _logs(view: View) -> dict[str, float]:
    area = _flame(view)[:, view.rows(0, FLOOR - 4)].sum((1, 2)) * view.cell
    if np.median(area) < 20:
        raise TrackLost("there is no flame")
    return {"stays lit": float((area < 0.25 * np.median(area)).mean()), "burns steadily": inconstancy(area)}


def _flame(view: View) -> np.ndarray:
    """Where something glows yellow to red and differs from the wall, bool ``(F, H, W)``."""
    red, green, blue = np.moveaxis(view.frames_FHWC, -1, 0)
    apart = np.linalg.norm(view.frames_FHWC - view.backdrop_HWC, axis=-1) > 45
    return (red > 150) & (red >= green) & (green > blue - 10) & (red - blue > 40) & apart


@tracker(
    "explosion",
    "bomb",
    Law("the fireball only grows", 0.1, "the whole growth"),
    Law("the growth slows down", 0.25, "the largest growth in a sixteenth of the clip"),
)
def _bomb(view: View) -> dict[str, float]:
    unlike = np.linalg.norm(view.frames_FHWC - view.backdrop_HWC, axis=-1) > 18
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (view.odd(5), view.odd(5)))
    area = np.zeros(len(unlike))
    for f, mask in enumerate(unlike.astype(np.uint8)):
        opened = cv2.morphologyEx(mask, cv2.MORPH_OPEN, kernel)
        _, _, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
        area[f] = stats[1:, cv2.CC_STAT_AREA].max() * view.cell if len(stats) > 1 else 0
    radius = np.sqrt(area / np.pi)
    moved(radius, 3.0, "the fireball")
    hot = _flame(view).sum((1, 2)) * view.cell > 12
    if not hot.any():
        raise TrackLost("nothing explodes")
    growth = np.diff(area)
    begin = int(np.argmax(growth > 0.25 * growth.max())) + 1  # a second blast may be the larger one
    grown = radius[begin :: view.stride]
    if len(grown) < 4:
        raise TrackLost("the explosion comes too late to be measured")
    return {"the fireball only grows": backwards(grown), "the growth slows down": speeding_up(grown)}


# --- optics -----------------------------------------------------------------------------------------------------------


@tracker(
    "reflection",
    "mirror",
    Law("angle in = angle out", 0.05, "the angle in"),
    Law("straight rays", 0.6, "a stage unit"),
)
def _mirror(view: View) -> dict[str, float]:
    alpha, centre = _beam(view)[-view.frames(3 / 8) :], view.frames_FHWC.shape[2] // 2
    halves = slice(0, centre), slice(centre, 2 * centre)
    sides = [_ray(view, alpha, view.rows(4, FLOOR - 7), half) for half in halves]
    slopes = [np.arctan(abs(side.slope)) for side in sides]
    if sides[0].slope * sides[1].slope > 0:
        raise TrackLost("the two rays do not meet at the mirror")
    return {
        "angle in = angle out": float(abs(slopes[1] - slopes[0]) / max(slopes)),
        "straight rays": max(side.residual for side in sides),
    }


@tracker(
    "refraction",
    "glass",
    Law("bends towards the normal", 0.05, "the index's range, 1.4 to 2"),
    Law("straight rays", 0.6, "a stage unit"),
)
def _glass(view: View) -> dict[str, float]:
    last, block = slice(-view.frames(2 / 8), None), _inside(view)
    outer = _ray(view, _beam(view)[last], view.rows(6, 30), slice(0, None))
    inner = _ray(block, _beam(block)[last], block.rows(33, FLOOR - 1), slice(0, None))
    if outer.slope * inner.slope <= 0:
        raise TrackLost("the ray in the glass goes the wrong way")
    index = np.sin(np.arctan(abs(outer.slope))) / np.sin(np.arctan(abs(inner.slope)))
    return {
        "bends towards the normal": outside(float(index), 1.4, 2.0),
        "straight rays": max(outer.residual, inner.residual),
    }


def _inside(view: View) -> View:
    """The part of the view that the block of glass takes, where each row has one colour but for the beam."""
    block = GlassBeam.vessel(view.region)
    columns = view.between(block.left + 1.5, block.right - 1.5)
    edges = view.region.left + np.array([columns.start, columns.stop]) * view.pixel_across
    return replace(
        view,
        frames_FHWC=view.frames_FHWC[:, :, columns],
        backdrop_HWC=view.backdrop_HWC[:, columns],
        region=Region(*edges),
    )


def _beam(view: View) -> np.ndarray:
    """The matte of a thin beam: what differs in colour from the rest of its row, float32 ``(F, H, W)``."""
    chroma = _chroma(view.frames_FHWC)
    excess = chroma - np.median(chroma, axis=2, keepdims=True)
    wanted = _chroma(np.array(view.colours[0], np.float32))
    return np.clip(excess @ wanted / (wanted @ wanted) - 0.08, 0, 1).astype(np.float32)


def _ray(view: View, alpha_FHW: np.ndarray, rows: slice, columns: slice) -> Line:
    y, x = row_centres(view, alpha_FHW, rows, columns)
    if len(y) < 6:
        raise TrackLost("a ray is missing")
    return line(y, x)


@tracker("scattering", "fog", Law("dimmer at the far end", 0.05, "the brightness at the near end"))
def _fog(view: View) -> dict[str, float]:
    wanted = _chroma(np.array(view.colours[0], np.float32))
    last = view.frames_FHWC[-view.frames(4 / 8) :, view.rows(20, 42)]
    strength = (_chroma(last) @ wanted / (wanted @ wanted)).mean(0)
    core = np.clip((strength - 0.6) / 0.4, 0, 1).sum(0) * view.pixel  # the glow around it is weaker than that
    part, lamp, end = len(core) // 5, round(8 / view.pixel_across), round(2 / view.pixel_across)
    near, far = core[lamp : lamp + part].mean(), core[-end - part : -end].mean()
    if near < 0.5:
        raise TrackLost("there is no beam")
    return {"dimmer at the far end": max(0.0, float(far / near) - 1)}


@tracker(
    "interference_and_diffraction",
    "ripples",
    Law("two equal sources", 0.15, "the pattern's contrast"),
)
def _ripples(view: View) -> dict[str, float]:
    tank = RippleTank.vessel(view.region)
    columns = view.between(tank.left + 1, tank.right - 1)
    waves = view.frames_FHWC[-view.frames(6 / 8) :, view.rows(20, FLOOR - 3), columns].mean(-1)
    contrast = waves.std()
    if contrast < 6:
        raise TrackLost("there are no waves")
    return {"two equal sources": float(np.sqrt(np.mean((waves - waves[:, :, ::-1]) ** 2)) / 2 / contrast)}


@tracker("unnatural_light_source", "neon", Law("one period", 0.15, "the amplitude"))
def _neon(view: View) -> dict[str, float]:
    excess = _chroma(view.frames_FHWC) - _chroma(view.backdrop_HWC)
    glow = (excess @ _chroma(np.array(view.colours[0], np.float32)))[:, view.rows(8, 46)].mean((1, 2))
    swing = oscillation(view.times, glow, shortest=0.4)
    if swing.amplitude < 0.05 * glow.mean():
        raise TrackLost("the lamp does not pulse")
    return {"one period": swing.residual / swing.amplitude}


def scenes() -> Sequence[tuple[str, str]]:
    """Every scene with a tracker."""
    return tuple(_TRACKERS)
