"""The five phenomena of optics: reflection, refraction, scattering, interference, an unnatural light source."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from prophy.worlds.dynamics import DARK_STEEL, STEEL, WHITE
from prophy.worlds.event import Event
from prophy.worlds.painter import Painter
from prophy.worlds.stage import COLOURS, FLOOR, Knobs, Region, mix

MIRROR = (206, 218, 230)
GLASS_BLOCK = (166, 212, 232)


def beam(painter: Painter, path: np.ndarray, reach: float, colour: tuple[int, int, int], act: bool = True) -> None:
    """Draw a light beam with a glow and a bright core along ``path`` (n, 2), for ``reach`` units from its start."""
    pieces = []
    for start, end in pairwise(path):
        length = float(np.hypot(*(end - start)))
        if reach <= 0:
            break
        pieces.append((start, start + (end - start) * min(1.0, reach / length)))
        reach -= length
    for start, end in pieces:
        normal = np.array([-(end - start)[1], (end - start)[0]]) / (np.hypot(*(end - start)) + 1e-6) * 2.6
        painter.blend_polygon(
            [start + normal, end + normal, end - normal, start - normal], mix(colour, WHITE, 0.3), 0.35, act
        )
    for start, end in pieces:
        painter.line(start, end, 2.6, colour, act)
    for start, end in pieces:
        painter.line(start, end, 0.9, mix(colour, WHITE, 0.75))


def lamp(painter: Painter, at: np.ndarray, towards: np.ndarray, colour: tuple[int, int, int]) -> None:
    """A small torch at ``at`` that shines along the unit vector ``towards``."""
    normal = np.array([-towards[1], towards[0]])
    back = at - towards * 6
    painter.polygon([back + normal * 2, at + normal * 3, at - normal * 3, back - normal * 2], DARK_STEEL)
    painter.polygon(
        [at - towards + normal * 2.4, at + normal * 2.4, at - normal * 2.4, at - towards - normal * 2.4], colour
    )


class MirrorBeam(Event):
    """A beam meets a mirror on the ground: the angle in equals the angle out."""

    phenomenon, variant = "reflection", "mirror"

    def simulate(self, knobs: Knobs) -> None:
        region, times = self.region, self.times
        direction = knobs.sign()
        angle = np.deg2rad(knobs(region.between(22.0, 36.0), region.between(42.0, 54.0)))  # from the normal
        self.mirror = FLOOR - 4
        foot = np.array([region.centre, self.mirror])
        rise = min(34.0, (region.width / 2 - 3) / np.tan(angle))
        arm = np.array([direction * np.tan(angle), 1.0]) * rise
        length = np.hypot(*arm)
        speed = knobs(1.0, 1.5) * length / self.stage.stretch
        self.state = {
            "reach": np.maximum(speed * (times + 0.12 * self.stage.stretch), 0),
            "angle_in": np.array(angle),
            "angle_out": np.array(angle),
            "path": np.array([foot - arm, foot, foot + arm * (1, -1) * 1.25]),
        }

    def draw(self, painter: Painter, moment: int) -> None:
        colour, centre = COLOURS[self.colours[0]], self.region.centre
        half = self.region.width * 0.4
        painter.rectangle(centre - half, self.mirror, centre + half, self.mirror + 2.6, MIRROR)
        painter.rectangle(centre - half, self.mirror + 2.6, centre + half, FLOOR, STEEL)
        path = self.at("path", moment)
        beam(painter, path, self.at("reach", moment), colour)
        lamp(painter, path[0], (path[1] - path[0]) / np.hypot(*(path[1] - path[0])), colour)


class GlassBeam(Event):
    """A beam enters a block of glass and bends towards the normal: Snell's law."""

    phenomenon, variant = "refraction", "glass"

    @staticmethod
    def vessel(region: Region) -> Region:
        """The block of glass."""
        return region.around(region.width * 0.42)

    def simulate(self, knobs: Knobs) -> None:
        region, times = self.region, self.times
        direction = knobs.sign()
        index = knobs(1.4, 2.0)
        angle = np.deg2rad(knobs(region.between(32.0, 42.0), region.between(46.0, 58.0)))
        inside = np.arcsin(np.sin(angle) / index)
        self.top = 31.0
        x = region.centre
        rise = min(20.0, (region.width / 2 - 2) / np.tan(angle))
        foot = np.array([x, self.top])
        depth = FLOOR - self.top
        path = np.array(
            [
                foot - np.array([direction * np.tan(angle), 1.0]) * rise,
                foot,
                foot + np.array([direction * np.tan(inside), 1.0]) * depth,
            ]
        )
        length = np.hypot(*np.diff(path, axis=0).T).sum()
        self.state = {
            "reach": knobs(0.5, 0.75) * length * (times / self.stage.stretch + 0.12),
            "angle_in": np.array(angle),
            "angle_out": np.array(inside),
            "index": np.array(index),
            "path": path,
        }

    def draw(self, painter: Painter, moment: int) -> None:
        colour, block = COLOURS[self.colours[0]], self.vessel(self.region)
        left, right = block.left, block.right
        painter.blend_polygon([(left, self.top), (right, self.top), (right, FLOOR), (left, FLOOR)], GLASS_BLOCK, 0.8)
        painter.rectangle(left, self.top, right, self.top + 1.2, WHITE)
        painter.rectangle(left, self.top, left + 1.2, FLOOR, mix(GLASS_BLOCK, WHITE, 0.5))
        path = self.at("path", moment)
        beam(painter, path, self.at("reach", moment), colour)
        lamp(painter, path[0], (path[1] - path[0]) / np.hypot(*(path[1] - path[0])), colour)


class FogBeam(Event):
    """A beam is lost in fog: its brightness falls exponentially (Beer-Lambert), the fog around it glows."""

    phenomenon, variant = "scattering", "fog"

    def simulate(self, knobs: Knobs) -> None:
        region, times = self.region, self.times
        self.y = knobs.rng.uniform(26, 34)
        self.puffs = knobs.rng.uniform(-1, 1, (max(13, round(region.width / 5)), 3))
        length = region.width - 8
        self.state = {
            "reach": length * np.minimum(1, (times / self.stage.stretch + 0.15) * knobs(0.7, 1.1)),
            "extinction": np.array(knobs(0.04, 0.08)),
        }

    def draw(self, painter: Painter, moment: int) -> None:
        colour, region = COLOURS[self.colours[0]], self.region
        centre = region.centre + region.width * 0.14
        for x, y, size in self.puffs:
            middle = (centre + x * region.width * 0.26 + np.sin(self.times[moment] + 5 * x), self.y + y * 8)
            painter.blend_ellipse(middle, ((5.5 + size) * region.scale, 4.5 + size), (236, 238, 242), 0.4)
        reach, extinction = self.at("reach", moment), float(self.at("extinction", moment))
        start = np.array([region.left + 7, self.y])
        finer = max(1, math.ceil(self.stage.scale))
        pieces = finer * max(14, round(region.width * 14 / 64))
        for i in range(pieces):
            at = i / pieces * (region.width - 8)
            if at > reach:
                break
            fog = np.exp(-(((start[0] + at - centre) / (region.width * 0.3)) ** 2))
            power = np.exp(-extinction * max(0.0, at - region.width * 0.2))
            painter.blend_ellipse(
                (start[0] + at, self.y),
                (4.2, 2 + 8.5 * fog),
                mix(colour, WHITE, 0.15),
                1 - (1 - (0.34 * power * fog + 0.02)) ** (1 / finer) if finer > 1 else 0.34 * power * fog + 0.02,
                act=fog > 0.25,
            )
            end = start[0] + at + (region.width - 8) / pieces
            painter.line((start[0] + at, self.y), (end, self.y), 2.2 * power + 0.3, colour)
        lamp(painter, start, np.array([1.0, 0.0]), colour)


class RippleTank(Event):
    """Two sources in a ripple tank: their waves add, and bright and still lines alternate."""

    phenomenon, variant = "interference_and_diffraction", "ripples"

    @staticmethod
    def vessel(region: Region) -> Region:
        """Between the walls of the tank, seen from above."""
        return region.around(region.width * 0.44)

    def simulate(self, knobs: Knobs) -> None:
        region = self.region
        tank = self.vessel(region)
        self.box = (tank.left, 12.0, tank.right, FLOOR - 2)
        # in a tank wider than the square stage's, longer waves, which run faster, so as to be seen all over it
        wavelength, frequency = knobs(6.5, 9.0) * max(1.0, region.width / 64) ** 0.5, knobs(1.0, 1.6)
        gap = knobs(8.0, 12.0) * region.scale
        self.strengths = (1.0, 1.0)  # of the sources, left and right
        self.state = {
            "wavelength": np.array(wavelength),
            "frequency": np.array(frequency),
            "gap": np.array(gap),
            "speed": np.array(wavelength * frequency),
        }
        columns = self.stage.columns(region)
        y, x = np.mgrid[: self.stage.height, : columns.stop - columns.start].astype(np.float32) + 0.5
        self.x, self.y = x / self.stage.scale + region.left, y / self.stage.scale
        left, top, right, bottom = self.box
        inside = (self.x > left) & (self.x < right) & (self.y > top) & (self.y < bottom)
        self.inside = inside.astype(np.float32)

    def height(self, moment: int) -> np.ndarray:
        """The waves of both sources together at every pixel of the region, float32 ``(H, W)``."""
        wavelength, frequency, gap = (float(self.at(name, moment)) for name in ("wavelength", "frequency", "gap"))
        height = np.zeros(self.x.shape, np.float32)
        for side, strength in zip((-1, 1), self.strengths, strict=True):
            distance = np.hypot(self.x - self.region.centre - side * gap / 2, self.y - 18)
            phase = distance / wavelength - frequency * (self.times[moment] + 0.35)
            front = np.clip(-phase, 0, 1)
            height += strength * front * np.cos(2 * np.pi * phase) / (1 + distance / 40)
        return height

    def draw(self, painter: Painter, moment: int) -> None:
        colour = np.array(COLOURS[self.colours[0]], np.float32)
        left, top, right, bottom = self.box
        painter.rectangle(left - 1.5, top - 1.5, right + 1.5, bottom + 1.5, STEEL)
        height = self.height(moment)
        wave = np.clip(height * 0.55 + 0.5, 0, 1)[..., None]
        picture = np.where(wave > 0.5, colour + (255 - colour) * (wave - 0.5) * 1.7, colour * (0.35 + 1.3 * wave))
        active = self.inside * np.clip(np.abs(height) * 6, 0, 1)
        painter.field(self.inside * 0.999, picture, act_above=2.0)
        painter.field(active * 0.5, picture, act_above=0.1)
        for side in (-1, 1):
            at = self.region.centre + side * float(self.at("gap", moment)) / 2
            painter.ellipse((at, 18), (1.6, 1.6), (40, 44, 52))


class NeonLamp(Event):
    """A neon tube blinks: its light, not the sun's, colours the wall; brightness falls with distance."""

    phenomenon, variant = "unnatural_light_source", "neon"

    def simulate(self, knobs: Knobs) -> None:
        region, times = self.region, self.times
        period = knobs(0.7, 1.2)
        phase = knobs.rng.uniform(0, 1)
        self.state = {
            "brightness": 0.5 - 0.5 * np.cos(2 * np.pi * (times / period + phase)),
            "period": np.array(period),
        }
        self.centre = np.array([region.centre, knobs.rng.uniform(22, 28)])
        self.radius = knobs(7.0, 9.0) * region.scale

    def draw(self, painter: Painter, moment: int) -> None:
        colour, power = COLOURS[self.colours[0]], float(self.at("brightness", moment))
        for share in (2.1, 1.75, 1.45):
            painter.blend_ellipse(
                self.centre,
                (self.radius * share, self.radius * share),
                mix(colour, WHITE, 0.25),
                0.3 * power,
                act=power > 0.15,
            )
        painter.line((self.centre[0], self.centre[1] + self.radius), (self.centre[0], FLOOR), 2.0, STEEL)
        painter.rectangle(self.centre[0] - 6, FLOOR - 2, self.centre[0] + 6, FLOOR + 0.5, DARK_STEEL)
        tube = mix(mix(colour, (40, 40, 48), 0.62), mix(colour, WHITE, 0.35), power)
        painter.ellipse(self.centre, (self.radius, self.radius), tube, act=True)
        painter.blend_ellipse(self.centre, (self.radius * 0.66, self.radius * 0.66), (30, 32, 44), 0.85)
        painter.ellipse(self.centre, (self.radius * 0.3, self.radius * 0.3), tube)
