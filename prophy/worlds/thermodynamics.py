"""The six phenomena of thermodynamics: melting, solidification, vaporization, liquefaction, combustion, explosion."""

from __future__ import annotations

import cv2
import numpy as np

from prophy.worlds.dynamics import DARK_STEEL, STEEL, WHITE, draw_tank
from prophy.worlds.event import Event
from prophy.worlds.fluid import plume
from prophy.worlds.painter import Painter
from prophy.worlds.stage import COLOURS, FLOOR, Knobs, Region, mix

ICE = (218, 240, 250)
STEAM = (246, 248, 250)


class MeltingBlock(Event):
    """A block of coloured ice melts into a puddle: what the block loses, the puddle gains."""

    phenomenon, variant = "melting", "block"

    def simulate(self, knobs: Knobs) -> None:
        region, times = self.region, self.times
        self.x = region.centre
        half, height = knobs(5.5, 7.0) * region.scale, knobs(18.0, 25.0)
        begin, left_over = self.stage.stretch * knobs.rng.uniform(0.1, 0.25), knobs.rng.uniform(0.12, 0.25)
        rate = (1 - left_over) / (self.stage.stretch * knobs(1.75, 2.2) - begin)
        share = np.clip(1 - rate * (times - begin), left_over, 1)
        self.state = {
            "height": height * share,
            "half_width": half * (1 + 0.12 * (1 - share)),
            "puddle_half_width": half * (1.0 + 1.15 * (1 - share)),
            "solid_share": share,
        }

    def draw(self, painter: Painter, moment: int) -> None:
        colour = COLOURS[self.colours[0]]
        height, half = self.at("height", moment), self.at("half_width", moment)
        puddle, share = self.at("puddle_half_width", moment), self.at("solid_share", moment)
        painter.ellipse(
            (self.x, FLOOR + 0.8), (puddle, 1.2 + 1.8 * (1 - share)), mix(colour, (0, 0, 0), 0.12), act=True
        )
        painter.ellipse((self.x - puddle * 0.3, FLOOR + 0.4), (puddle * 0.4, 0.7), mix(colour, WHITE, 0.55))
        ys = np.linspace(0, 1, 12)
        rounding = (0.12 + 0.55 * (1 - share)) * half
        side = half - rounding * (1 - ys) ** 2.2
        sag = 0.5 * (1 - share) * np.sin(ys * 9 + self.tick(moment) / self.stage.stretch * 0.5)
        outline = np.concatenate(
            [
                np.stack([self.x - side - sag, FLOOR - height * (1 - ys)], 1),
                np.stack([self.x + side + sag[::-1], FLOOR - height * (1 - ys)], 1)[::-1],
            ]
        )
        painter.polygon(outline, mix(colour, (0, 0, 0), 0.2), act=True)
        centre = np.array((self.x, FLOOR - height / 2))
        painter.polygon((outline - centre) * (0.82, 0.86) + centre, mix(colour, WHITE, 0.12))
        painter.polygon(
            (outline - centre) * (0.2, 0.5) + centre - (half * 0.42, height * 0.12), mix(colour, WHITE, 0.6)
        )
        for drop in range(2):
            fall = (self.times[moment] / self.stage.stretch * 1.3 + 0.5 * drop) % 1
            if share < 0.97 and height > 7:
                painter.ellipse(
                    (self.x + (2 * drop - 1) * (half + 0.6), FLOOR - height * 0.6 * (1 - fall)),
                    (1, 1.5),
                    colour,
                    act=True,
                )


class FreezingTank(Event):
    """A tank of liquid freezes from the bottom up: the front advances as the square root of time (Stefan)."""

    phenomenon, variant = "solidification", "freeze"

    @staticmethod
    def vessel(region: Region) -> Region:
        """Between the walls of the tank."""
        return region.around(region.width / 2 * 0.7)

    def simulate(self, knobs: Knobs) -> None:
        region, times = self.region, self.times
        tank = self.vessel(region)
        self.left, self.right = tank.left, tank.right
        self.level, begin = knobs.rng.uniform(20, 25), knobs.rng.uniform(0.0, 0.2)
        begin *= self.stage.stretch
        speed = self.level / np.sqrt(self.stage.stretch * knobs(1.5, 2.1))
        self.state = {
            "front": np.minimum(speed * np.sqrt(np.maximum(times - begin, 0)), self.level),
            "speed": np.array(speed),
        }
        self.rough = knobs.rng.uniform(-1.4, 1.4, max(11, round(region.width / 6)))
        self.cracks = knobs.rng.uniform(0, 1, (max(7, round(region.width / 9)), 4))

    def draw(self, painter: Painter, moment: int) -> None:
        colour, front = COLOURS[self.colours[0]], self.at("front", moment)
        top = FLOOR - self.level
        wave = 0.7 * (1 - front / self.level)
        xs = np.linspace(self.left, self.right, len(self.rough))
        ys = top + wave * np.sin(np.arange(len(xs)) * 1.4 + self.tick(moment) * 1.1)
        painter.polygon(np.concatenate([np.stack([xs, ys], 1), [(self.right, FLOOR), (self.left, FLOOR)]]), colour)
        if front > 0.3:
            edge = np.clip(FLOOR - front + self.rough * min(1, (self.level - front) / 3 + 0.15), top, FLOOR)
            ice = mix(ICE, colour, 0.22)
            painter.polygon(
                np.concatenate([np.stack([xs, edge], 1), [(self.right, FLOOR), (self.left, FLOOR)]]), ice, act=True
            )
            for i in range(len(xs) - 1):
                painter.line((xs[i], edge[i]), (xs[i + 1], edge[i + 1]), 1.4, WHITE)
            for x, y, dx, dy in self.cracks:
                y = FLOOR - y * self.level
                if y > FLOOR - front + 1.5:
                    x = self.left + 2 + x * (self.right - self.left - 4)
                    painter.line((x, y), (x + 7 * dx - 3.5, y - 4 * dy), 0.9, mix(ice, colour, 0.4))
        draw_tank(painter, self.left, self.right, FLOOR - 28)


class BoilingPot(Event):
    """Liquid boils on a hot plate: the level sinks at a constant rate, bubbles rise, steam leaves."""

    phenomenon, variant = "vaporization", "boil"

    @staticmethod
    def vessel(region: Region) -> Region:
        """Between the walls of the pot."""
        return region.around(min(region.width, 72.0) / 2 * 0.55)

    def simulate(self, knobs: Knobs) -> None:
        region, times = self.region, self.times
        pot = self.vessel(region)
        self.left, self.right = pot.left, pot.right
        start, rate = knobs.rng.uniform(15, 18), knobs(3.0, 5.5) / self.stage.stretch
        self.state = {"level": start - rate * times, "rate": np.array(rate)}
        self.bubbles = knobs.rng.uniform(0, 1, (max(9, round(region.width / 7)), 3))
        columns = int(region.width / 2)
        self.steam = plume(
            knobs.rng,
            (22, columns),
            times,
            (columns / 2, 19.0, min(columns, 36) * 2 / 9),
            buoyancy=0.3,
            swirl=0.5,
            wind=0.0,
            cooling=0.05,
            warm_up=4,
            detail=self.stage.detail,
        )

    def draw(self, painter: Painter, moment: int) -> None:
        depth = self.at("level", moment)
        colour, level = COLOURS[self.colours[0]], FLOOR - 3 - depth
        alpha = np.zeros((32 * self.stage.detail, self.steam.shape[2]), np.float32)
        alpha[: self.steam.shape[1]] = np.clip(self.steam[moment] * 1.1, 0, 0.8)
        painter.field(alpha, np.array(STEAM))
        painter.rectangle(self.left, level, self.right, FLOOR - 3, colour, act=True)
        painter.rectangle(self.left, level, self.right, level + 1.2, mix(colour, WHITE, 0.5))
        for x, phase, size in self.bubbles:
            rise = (phase + self.times[moment] * (0.9 + 0.5 * size)) % 1
            radius = 0.8 + 1.1 * size * (0.4 + 0.6 * rise)
            at = (self.left + 2 + x * (self.right - self.left - 4), FLOOR - 4 - rise * (depth - 2))
            painter.ellipse(at, (radius, radius), mix(colour, WHITE, 0.65))
        for x in (self.left - 0.8, self.right + 0.8):
            painter.line((x, FLOOR - 22), (x, FLOOR - 2), 1.6, STEEL)
        painter.line((self.left - 1.6, FLOOR - 2.2), (self.right + 1.6, FLOOR - 2.2), 1.8, STEEL)
        painter.rectangle(self.left - 3, FLOOR - 1.4, self.right + 3, FLOOR + 2, (226, 88, 44))


class CondensingPlate(Event):
    """Vapour condenses under a cold plate: drops grow, let go and fall; their volume grows linearly."""

    phenomenon, variant = "liquefaction", "condense"

    def simulate(self, knobs: Knobs) -> None:
        region, times = self.region, self.times
        self.half, self.x = region.width * 0.42, region.centre
        count = max(4, round(region.width / 13))
        self.xs = self.x + np.linspace(-0.8, 0.8, count) * self.half
        self.phase = knobs.rng.uniform(0, 0.7, count)
        growth = knobs(0.75, 1.0) / self.stage.stretch
        clock = times[:, None] * growth + self.phase
        hanging = clock < 1.15
        volume = np.where(hanging, clock / 1.15, 1.0)
        falling = np.maximum(clock - 1.15, 0) / growth
        self.state = {
            "radius": 3.0 * np.cbrt(np.maximum(volume, 0.02)),
            "fall": np.minimum(0.5 * 110 * falling**2, FLOOR - 20),
            "growth": np.array(growth),
        }
        self.mist = knobs.rng.uniform(0, 1, (max(8, round(region.width / 8)), 2))

    def draw(self, painter: Painter, moment: int) -> None:
        colour = COLOURS[self.colours[0]]
        for x, y in self.mist:
            drift = np.sin(self.times[moment] * 1.5 + 7 * x) * 2
            painter.blend_ellipse((self.x + (x * 2 - 1) * self.half + drift, 23 + 14 * y), (5, 2.6), STEAM, 0.32)
        landed = float((self.at("fall", moment) >= FLOOR - 20.5).mean())
        if landed > 0:
            painter.ellipse(
                (self.x, FLOOR + 1), (self.half * (0.5 + 0.5 * landed), 0.8 + 1.4 * landed), colour, act=True
            )
        for i, x in enumerate(self.xs):
            radius, fall = self.at("radius", moment)[i], self.at("fall", moment)[i]
            if fall < FLOOR - 20.5:
                stretch = 1.25 if fall > 0 else 1.0
                at = (x, 15 + radius * 0.8 + fall)
                painter.ellipse(at, (radius / stretch, radius * stretch), mix(colour, (0, 0, 0), 0.15), act=True)
                painter.ellipse(
                    (at[0] - radius * 0.3, at[1] - radius * 0.2), (radius * 0.3, radius * 0.4), mix(colour, WHITE, 0.7)
                )
        painter.rectangle(self.x - self.half - 2, 6, self.x + self.half + 2, 14, mix(STEEL, ICE, 0.55))
        painter.rectangle(self.x - self.half - 2, 12.4, self.x + self.half + 2, 14.4, ICE)


def flame_colours(heat: np.ndarray) -> np.ndarray:
    """Black-body-like colours of a flame, ``heat`` (h, w) in [0, 1] to RGB (h, w, 3)."""
    stops = np.array([0.0, 0.25, 0.5, 0.8, 1.0])
    table = np.array([(150, 20, 10), (224, 62, 14), (250, 138, 24), (255, 214, 74), (255, 248, 206)], float)
    return np.stack([np.interp(heat, stops, table[:, c]) for c in range(3)], -1).astype(np.float32)


class BurningCandle(Event):
    """A candle burns down under a flickering flame: a hot grid fluid; the wax sinks at a constant rate."""

    phenomenon, variant = "combustion", "candle"

    def simulate(self, knobs: Knobs) -> None:
        region, times = self.region, self.times
        self.x = region.centre
        self.half = knobs(4.5, 6.0) * region.scale
        start, rate = knobs.rng.uniform(17, 21), knobs(1.0, 3.5) / self.stage.stretch
        self.state = {"height": start - rate * times, "rate": np.array(rate)}
        self.heat = plume(
            knobs.rng,
            (24, 18),
            times,
            (8.5, 20.5, 3.3),
            buoyancy=0.34,
            swirl=0.45,
            wind=knobs.rng.uniform(-0.03, 0.03),
            cooling=0.17,
            warm_up=12,
            detail=self.stage.detail,
        )

    def draw(self, painter: Painter, moment: int) -> None:
        top = FLOOR - self.at("height", moment)
        colour = COLOURS[self.colours[0]]
        painter.shadow(self.x, self.half)
        painter.rectangle(self.x - self.half, top, self.x + self.half, FLOOR, mix(colour, (0, 0, 0), 0.22))
        painter.rectangle(self.x - self.half * 0.75, top, self.x + self.half * 0.6, FLOOR, colour)
        painter.rectangle(
            self.x - self.half * 0.55, top + 2, self.x - self.half * 0.25, FLOOR - 2, mix(colour, WHITE, 0.45)
        )
        painter.ellipse((self.x, top), (self.half, 1.5), mix(colour, WHITE, 0.4))
        painter.line((self.x, top), (self.x, top - 3), 1.2, (50, 40, 40))
        paint_flame(painter, self, moment, top - 0.5, 1.15 * self.region.scale)


class BurningLogs(Event):
    """A camp fire: crossed logs under a broad flame, a hot grid fluid."""

    phenomenon, variant, colour_count = "combustion", "logs", 0

    def simulate(self, knobs: Knobs) -> None:
        region, times = self.region, self.times
        self.x = region.centre
        self.half = knobs(9.0, 11.0) * region.scale
        strength = knobs(0.3, 0.42)
        self.heat = plume(
            knobs.rng,
            (24, 18),
            times,
            (8.5, 20.5, 4.6),
            buoyancy=strength,
            swirl=0.6,
            wind=knobs.rng.uniform(-0.03, 0.03),
            cooling=0.14,
            warm_up=14,
            detail=self.stage.detail,
        )
        self.state = self.measured() | {"buoyancy": np.array(strength)}

    def measured(self) -> dict[str, np.ndarray]:
        """The part of the state that follows from the heat."""
        return {"flame_area": (self.heat > 0.18).sum((1, 2)) / self.stage.detail**2}

    def draw(self, painter: Painter, moment: int) -> None:
        painter.shadow(self.x, self.half)
        for lean, wood in ((-1, (112, 70, 42)), (1, (138, 88, 54))):
            start, end = (self.x - lean * self.half, FLOOR - 1), (self.x + lean * self.half * 0.8, FLOOR - 7)
            painter.line(start, end, 4.2, wood)
            painter.ellipse(end, (1.6, 2.1), mix(wood, WHITE, 0.35))
        paint_flame(painter, self, moment, FLOOR - 4, 1.55 * self.region.scale)


def paint_flame(painter: Painter, fire: BurningCandle | BurningLogs, moment: int, base: float, size: float) -> None:
    """Blend a fire's heat (24×18 cells of ``size`` units) so that its emitter sits at ``(fire.x, base)``."""
    stage, region, detail = fire.stage, fire.region, fire.stage.detail
    heat = fire.heat[moment]
    columns = stage.columns(region)
    y = (np.arange(stage.height) + 0.5) / stage.scale
    x = region.left + (np.arange(columns.stop - columns.start) + 0.5) / stage.scale
    ys = ((y - base) / size + 20.0) * detail + (detail - 1) / 2
    xs = ((x - fire.x) / size + 8.5) * detail + (detail - 1) / 2
    grid_x, grid_y = np.meshgrid(xs.astype(np.float32), ys.astype(np.float32))
    hot = cv2.remap(heat, grid_x, grid_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    hot[int((base + 1.5) * stage.scale) :] = 0
    # a flame tapers: air entrained from the sides cools its edge more the higher it is
    height = np.clip((base - y) / (20.0 * size), 0, 1)[:, None]
    across = np.abs(x - fire.x)[None] / (7.5 * size)
    hot = hot * np.clip(1.35 - (across + 0.12) / np.maximum(1 - height, 0.05) ** 0.8 * 1.15, 0, 1)
    painter.field(np.clip(hot * 2.6 - 0.15, 0, 0.96), flame_colours(np.clip(hot * 1.5, 0, 1)), act_above=0.25)


class Bomb(Event):
    """A bomb bursts: the fireball grows and slows down (drag), cools into smoke; shards fly on parabolas."""

    phenomenon, variant = "explosion", "bomb"

    def simulate(self, knobs: Knobs) -> None:
        region, times = self.region, self.times
        self.radius = knobs(5.0, 6.5) * region.scale
        self.centre = np.array([region.centre, knobs.rng.uniform(33, 40)])
        stretch = self.stage.stretch
        begin = float(knobs.rng.integers(3, 6)) / 8 * stretch
        burst = times >= begin - 1e-9
        reach = knobs(11.0, 14.5) * region.scale
        since = np.maximum(times - begin, 0)
        slower = stretch**0.5  # a longer clip shows more of the blast, and more of the smoke it leaves
        growth = 1 - np.exp(-4.5 * (since / slower + 0.06))
        count = 9
        angle = np.linspace(0, 2 * np.pi, count, endpoint=False) + knobs.rng.uniform(-0.3, 0.3, count)
        speed = knobs.rng.uniform(22, 36, count) * region.scale
        velocity = np.stack([np.cos(angle), np.sin(angle)], 1) * speed[:, None] - (0, 14)
        flown = since[:, None, None] / slower
        self.state = {
            "fireball_radius": np.where(burst, 3.5 + reach * growth, 0),
            "shards": self.centre + velocity * flown + 0.5 * np.array([0, 60.0]) * flown**2,
            "heat": np.exp(-since / stretch * 1.5) * burst,
            "begin": np.array(int(np.argmax(burst))),
        }
        self.fuse = times / stretch  # how much of it has burnt: two before the blast, at most
        self.lobes = knobs.rng.uniform(0.72, 1.05, 11)
        self.turn = knobs.rng.uniform(0, 2 * np.pi)

    def shown_at(self, moments: np.ndarray) -> dict[str, np.ndarray]:
        state = super().shown_at(moments)
        burst = state["fireball_radius"] > 0
        return state | {"begin": np.array(int(np.argmax(burst)) if burst.any() else len(moments))}

    def draw(self, painter: Painter, moment: int) -> None:
        colour = COLOURS[self.colours[0]]
        ball, radius = self.at("radius", moment), self.at("fireball_radius", moment)
        if not radius:
            painter.ball(self.centre, ball, colour, act=False)
            painter.rectangle(
                self.centre[0] - 1.6,
                self.centre[1] - ball - 2,
                self.centre[0] + 1.6,
                self.centre[1] - ball + 1,
                DARK_STEEL,
            )
            flicker, burnt = 0.6 * (self.tick(moment) % 2), 3.2 * self.fuse[moment]
            spark = self.centre + np.array([2.4 + flicker, -ball - 4.2 + burnt])
            painter.line(self.centre - (0, ball + 2), spark, 1.0, (90, 70, 50))
            painter.ellipse(spark, (1.7, 1.7), (255, 206, 70))
            return
        heat = self.at("heat", moment)
        angle = np.linspace(0, 2 * np.pi, 44, endpoint=False)
        lobes = np.interp(angle + self.turn, np.linspace(0, 4 * np.pi, 22), np.tile(self.lobes, 2))
        outline = np.stack([np.cos(angle), np.sin(angle)], 1) * lobes[:, None]
        smoke = mix((96, 90, 92), (70, 60, 58), heat)
        painter.blend_polygon(self.centre + outline * radius * 1.12, smoke, 0.25 + 0.5 * min(1.0, 2.2 * heat), act=True)
        for share, level in ((0.95, 0.42), (0.76, 0.62), (0.55, 0.85), (0.33, 1.0)):
            strength = np.clip(heat * 1.35 - (1 - level) * 0.35, 0, 1)
            hot = tuple(flame_colours(np.array([[level * min(1.0, heat + 0.25)]]))[0, 0])
            painter.blend_polygon(self.centre + outline * radius * share, hot, float(strength))
        for shard in self.at("shards", moment):
            if 0 < shard[1] < FLOOR + 4:
                painter.rectangle(shard[0] - 1.3, shard[1] - 1.3, shard[0] + 1.3, shard[1] + 1.3, colour, act=True)
