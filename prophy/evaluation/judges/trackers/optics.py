"""Trackers of optics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from prophy.evaluation.judges.laws import Line, TrackLost, line, oscillation, outside
from prophy.evaluation.judges.trackers.follow import row_centres
from prophy.evaluation.judges.trackers.register import Law, tracker
from prophy.evaluation.judges.trackers.view import View, chroma
from prophy.worlds.optics import GlassBeam, RippleTank
from prophy.worlds.stage import FLOOR, Region


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
    tint = chroma(view.frames_FHWC)
    excess = tint - np.median(tint, axis=2, keepdims=True)
    wanted = chroma(np.array(view.colours[0], np.float32))
    return np.clip(excess @ wanted / (wanted @ wanted) - 0.08, 0, 1).astype(np.float32)


def _ray(view: View, alpha_FHW: np.ndarray, rows: slice, columns: slice) -> Line:
    y, x = row_centres(view, alpha_FHW, rows, columns)
    if len(y) < 6:
        raise TrackLost("a ray is missing")
    return line(y, x)


@tracker("scattering", "fog", Law("dimmer at the far end", 0.05, "the brightness at the near end"))
def _fog(view: View) -> dict[str, float]:
    wanted = chroma(np.array(view.colours[0], np.float32))
    last = view.frames_FHWC[-view.frames(4 / 8) :, view.rows(20, 42)]
    strength = (chroma(last) @ wanted / (wanted @ wanted)).mean(0)
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
    excess = chroma(view.frames_FHWC) - chroma(view.backdrop_HWC)
    glow = (excess @ chroma(np.array(view.colours[0], np.float32)))[:, view.rows(8, 46)].mean((1, 2))
    swing = oscillation(view.times, glow, shortest=0.4)
    if swing.amplitude < 0.05 * glow.mean():
        raise TrackLost("the lamp does not pulse")
    return {"one period": swing.residual / swing.amplitude}
