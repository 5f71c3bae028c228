"""Impossible twins of optics."""

from __future__ import annotations

import numpy as np

from prophy.worlds.optics import FogBeam, GlassBeam, MirrorBeam, NeonLamp, RippleTank
from prophy.worlds.stage import FLOOR
from prophy.worlds.twins.register import Rng, changing_pace, twin


def _bulging(path: np.ndarray, sideways: tuple[float, float], near: tuple[float, float]) -> np.ndarray:
    """Bend both rays of a path ``(3, 2)`` so far to the right at most.

    A ray bulges from ``near`` units above or below where the two meet to three units from its end, alike on both sides
    of its middle: so the straight line through the part of it that bulges keeps its angle.
    """
    rays = []
    for far, start, end, begin in zip(sideways, path[:-1], path[1:], near, strict=True):
        ray = start + (end - start) * np.linspace(0, 1, 49)[:, None]
        length = abs(end[1] - start[1])
        bent = np.clip((np.abs(ray[:, 1] - path[1, 1]) - begin) / (length - 3 - begin), 0, 1)
        ray[:, 0] += far * (1 - np.cos(2 * np.pi * bent)) / 2
        rays.append(ray)
    return np.concatenate([rays[0], rays[1][1:]])


def _lead(light: MirrorBeam | GlassBeam, path: np.ndarray) -> None:
    """Send the light along another path ``(n, 2)``."""
    light.state["path"] = np.broadcast_to(path, (len(light.times), *path.shape))


@twin(MirrorBeam, "angle in = angle out", "the beam leaves the mirror much more steeply than it came")
def _steeper(light: MirrorBeam, rng: Rng) -> None:
    path, angle = light.state["path"].copy(), float(light.state["angle_in"])
    out = angle * rng.uniform(0.45, 0.65)
    path[2, 0] = path[1, 0] + (path[2, 0] - path[1, 0]) * np.tan(out) / np.tan(angle)
    _lead(light, path)
    light.state["angle_out"] = np.array(out)


@twin(MirrorBeam, "straight rays", "both rays bulge in empty air")
def _bent(light: MirrorBeam, rng: Rng) -> None:
    path, foot = light.state["path"].copy(), light.state["path"][1]
    half = light.region.width / 2
    path[2] = foot + (path[2] - foot) * min(1.0, half / abs(path[2, 0] - foot[0]))  # the part of it that can be seen
    far = rng.uniform(2.4, 2.9) * rng.choice((-1, 1))
    _lead(light, _bulging(path, (-far, far), (5, 5)))


@twin(GlassBeam, "bends towards the normal", "the beam goes straight through, as if there were no glass")
def _unbent(light: GlassBeam, rng: Rng) -> None:
    path, block = light.state["path"].copy(), light.vessel(light.region)
    index = rng.uniform(1.0, 1.12)
    inside = np.arcsin(np.sin(float(light.state["angle_in"])) / index)
    depth = min(FLOOR - light.top, (block.width / 2 - 1.5) / np.tan(inside))
    path[2] = path[1] + np.array([np.sign(path[2, 0] - path[1, 0]) * np.tan(inside), 1.0]) * depth
    _lead(light, path)
    light.state |= {"angle_out": np.array(inside), "index": np.array(index)}


@twin(GlassBeam, "straight rays", "both rays bulge, in the air and in the glass")
def _bent_in_glass(light: GlassBeam, rng: Rng) -> None:
    far = rng.uniform(2.6, 3.2) * rng.choice((-1, 1))
    _lead(light, _bulging(light.state["path"], (far, far), (3, 5)))  # in the glass from below its bright edge


@twin(FogBeam, "dimmer at the far end", "the farther the beam is, the brighter")
def _gathering(light: FogBeam, rng: Rng) -> None:
    width = light.region.width
    light.state["extinction"] = np.array(-np.log(rng.uniform(2.2, 2.8)) / (0.8 * width - 8))


@twin(RippleTank, "two equal sources", "the waves of one source are hardly there")
def _unequal(tank: RippleTank, rng: Rng) -> None:
    weak = rng.uniform(0.1, 0.25)
    tank.strengths = (weak, 1.0) if rng.random() < 0.5 else (1.0, weak)


twin(NeonLamp, "one period", "the tube blinks faster and faster, or slower and slower")(changing_pace)
