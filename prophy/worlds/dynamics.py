"""The six phenomena of dynamics: collision, rigid body, elastic, liquid and gas motion, deformation."""

from __future__ import annotations

import math

import numpy as np
import pymunk

from prophy.worlds.event import Event
from prophy.worlds.fluid import plume
from prophy.worlds.painter import Painter
from prophy.worlds.stage import COLOURS, FLOOR, Knobs, Region, mix

_STEPS = 96  # pymunk steps a second, at least
_FALL_STEPS = 480  # of a bouncing ball
_SPOKES = 3  # of a wheel, from rim to rim
STEEL = (122, 130, 142)
DARK_STEEL = (78, 84, 96)
GLASS = (232, 242, 248)
WHITE = (255, 255, 255)


def run(space: pymunk.Space, bodies: list[pymunk.Body], times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run a pymunk space; returns positions ``(T, n, 2)``, velocities ``(T, n, 2)``, angles ``(T, n)``."""
    position = np.empty((len(times), len(bodies), 2))
    velocity = np.empty((len(times), len(bodies), 2))
    angle = np.empty((len(times), len(bodies)))
    steps, dt = steps_between(times, _STEPS)
    for moment in range(len(times)):
        for i, body in enumerate(bodies):
            position[moment, i], velocity[moment, i], angle[moment, i] = body.position, body.velocity, body.angle
        for _ in range(steps):
            space.step(dt)
    return position, velocity, angle


def steps_between(times: np.ndarray, least: float) -> tuple[int, float]:
    """Steps of a simulation from one moment to the next, and their length: at least ``least`` of them a second."""
    apart = float(times[1] - times[0])
    steps = max(1, math.ceil(apart * least - 1e-6))
    return steps, apart / steps


class BallCollision(Event):
    """Two balls roll towards each other, meet and part: momentum is kept, energy by the restitution."""

    phenomenon, variant, colour_count = "collision", "balls", 2

    def simulate(self, knobs: Knobs) -> None:
        region, times = self.region, self.times
        radii = np.array([knobs(4.0, 6.0), knobs(4.0, 6.0)]) * region.scale
        restitution = knobs(0.7, 1.0)
        space = pymunk.Space()
        bodies = []
        start = np.array([region.left + radii[0] + 0.5, region.right - radii[1] - 0.5])
        # balls of different size that roll on one ground touch at this distance of their centres
        touching = 2 * np.sqrt(radii.prod())
        closing = (start[1] - start[0] - touching) / (knobs(0.7, 1.05) * self.stage.stretch)
        share = knobs.rng.uniform(0.4, 0.6)
        for i, (x, speed) in enumerate(zip(start, (closing * share, -closing * (1 - share)), strict=True)):
            mass = radii[i] ** 2 / 25
            body = pymunk.Body(mass, float("inf"))
            body.position, body.velocity = (float(x), 0.0), (float(speed), 0.0)
            shape = pymunk.Circle(body, touching / 2)
            shape.elasticity, shape.friction = restitution**0.5, 0.0
            space.add(body, shape)
            bodies.append(body)
        position, velocity, _ = run(space, bodies, times)
        self.state = {
            "position": np.stack([position[..., 0], np.broadcast_to(FLOOR - radii, (len(times), 2))], -1),
            "velocity": velocity,
            "mass": np.array([body.mass for body in bodies]),
            "radius": radii,
            "restitution": np.array(restitution),
        }

    def draw(self, painter: Painter, moment: int) -> None:
        for centre, radius, colour in zip(
            self.at("position", moment), self.at("radius", moment), self.colours, strict=True
        ):
            painter.shadow(centre[0], radius * 0.9)
            painter.ball(centre, radius, COLOURS[colour])


class RollingWheel(Event):
    """A spoked wheel rolls along the ground without slipping: distance is radius times angle."""

    phenomenon, variant = "rigid_body_motion", "wheel"

    def simulate(self, knobs: Knobs) -> None:
        region, times = self.region, self.times
        radius = knobs(6.0, 8.0) * region.scale
        # a spoke may turn by four fifths of the angle at which, from frame to frame, it seems to stand or to turn back
        fastest = 0.8 * np.pi / (2 * _SPOKES) * radius * self.stage.fps
        travel = min(region.width - 2 * radius - 1, fastest * times[-1])
        direction = knobs.sign()
        speed = direction * travel / times[-1] * knobs(0.75, 1.0)
        x = region.centre - direction * travel / 2 + speed * times
        position = np.stack([x, np.full(len(times), FLOOR - radius)], 1)
        self.state = {
            "position": position,
            "velocity": np.stack([np.full(len(times), speed), np.zeros(len(times))], 1),
            "angle": (x - x[0]) / radius,
            "radius": np.array(radius),
        }

    def draw(self, painter: Painter, moment: int) -> None:
        centre, turn, radius = self.at("position", moment), self.at("angle", moment), self.at("radius", moment)
        colour = COLOURS[self.colours[0]]
        painter.shadow(centre[0], radius * 0.8)
        painter.ellipse(centre, (radius, radius), mix(colour, (0, 0, 0), 0.25), act=True)
        painter.ellipse(centre, (radius * 0.74, radius * 0.74), mix(colour, WHITE, 0.72))
        for spoke in range(_SPOKES):
            angle = turn + spoke * np.pi / _SPOKES
            along = np.array([np.cos(angle), np.sin(angle)]) * radius * 0.8
            painter.line(centre - along, centre + along, 1.6, colour)
        painter.ellipse(centre, (1.8, 1.8), mix(colour, (0, 0, 0), 0.4))


class TumblingCrate(Event):
    """A crate is thrown, turns in the air and lands: a parabola and a steady spin until it touches."""

    phenomenon, variant = "rigid_body_motion", "crate"

    def simulate(self, knobs: Knobs) -> None:
        region, times = self.region, self.times
        half = knobs(4.0, 5.5) * region.scale
        direction = knobs.sign()
        slower = self.stage.stretch**0.5  # a longer clip shows a longer flight, and more of what comes after it
        gravity = 38.0 / slower**2
        space = pymunk.Space()
        space.gravity = (0, gravity)
        ground = pymunk.Segment(space.static_body, (-100, FLOOR + 5), (200, FLOOR + 5), 5)
        ground.friction, ground.elasticity = 0.9, 0.2
        mass = half**2 / 20
        side = 2 * half
        body = pymunk.Body(mass, pymunk.moment_for_box(mass, (side, side)))
        reach = region.width / 2 - half - 2
        body.position = (region.centre - direction * reach, knobs.rng.uniform(18, 24))
        body.velocity = (direction * reach * knobs(0.8, 1.3) / slower, -knobs(4.0, 14.0) / slower)
        body.angular_velocity = direction * knobs(2.0, 5.0) / slower
        shape = pymunk.Poly.create_box(body, (side, side), 0.2)
        shape.friction, shape.elasticity = 0.9, 0.2
        space.add(body, shape, ground)
        position, velocity, angle = run(space, [body], times)
        self.state = {
            "position": position[:, 0],
            "velocity": velocity[:, 0],
            "angle": angle[:, 0],
            "half_side": np.array(half),
            "gravity": np.array(gravity),
        }

    def draw(self, painter: Painter, moment: int) -> None:
        centre, angle, half = self.at("position", moment), self.at("angle", moment), self.at("half_side", moment)
        colour = COLOURS[self.colours[0]]
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[c, s], [-s, c]])
        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float) @ turn
        painter.shadow(centre[0], half * 0.9)
        painter.polygon(centre + corners * half, mix(colour, (0, 0, 0), 0.3), act=True)
        painter.polygon(centre + corners * half * 0.76, mix(colour, WHITE, 0.1))
        for a, b in ((0, 2), (1, 3)):
            ends = centre + corners[a] * half * 0.8, centre + corners[b] * half * 0.8
            painter.line(*ends, 1.5, mix(colour, (0, 0, 0), 0.3))


def bounces(
    times: np.ndarray, drop: float, gravity: float, restitution: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A ball that falls from ``drop`` units: its heights, its speeds downwards and how flat it is, ``(T,)`` each."""
    height, speed = drop, 0.0
    heights, speeds, contact, force = (np.zeros(len(times)) for _ in range(4))
    steps, dt = steps_between(times, _FALL_STEPS)
    since_touch, hit = 9.0, np.inf
    for moment in range(len(times)):
        heights[moment], speeds[moment] = height, speed
        contact[moment] = max(0.0, 1.0 - since_touch / 0.07)
        force[moment] = min(1.0, hit / 20)  # a ball that comes to rest is round again
        for _ in range(steps):
            speed += gravity * dt
            height -= speed * dt
            since_touch += dt
            if height < 0:
                height, speed, since_touch, hit = 0.0, -restitution * abs(speed), 0.0, abs(speed)
    return heights, speeds, 1.0 - 0.34 * np.maximum(contact, (heights < 1.0) * 0.7) * force


class BouncingBall(Event):
    """A ball drops and bounces, flattening as it touches: each height is restitution² of the last."""

    phenomenon, variant = "elastic_motion", "ball"

    def simulate(self, knobs: Knobs) -> None:
        region, times = self.region, self.times
        radius = knobs(5.0, 7.0) * region.scale
        drop = knobs(24.0, 38.0)
        gravity = knobs(90.0, 130.0)
        restitution = knobs(0.78, 0.92)
        heights, speeds, squash = bounces(times, drop, gravity, restitution)
        x = region.centre + knobs.rng.uniform(-0.12, 0.12) * region.width
        room = 3.0 + 0.5 * max(0.0, region.width - 64)  # on its way to either side; a wide stage is there to be used
        drift = knobs.sign() * knobs.rng.uniform(0, room) / self.stage.stretch
        self.state = {
            "position": np.stack([x + drift * (times - times[-1] / 2), FLOOR - radius - heights], 1),
            "velocity": np.stack([np.full(len(times), drift), speeds], 1),
            "squash": squash,
            "radius": np.array(radius),
            "gravity": np.array(gravity),
            "restitution": np.array(restitution),
        }

    def draw(self, painter: Painter, moment: int) -> None:
        centre, squash = self.at("position", moment).copy(), self.at("squash", moment)
        radius = self.at("radius", moment)
        lift = (FLOOR - radius - centre[1]) / 40
        centre[1] += radius * (1 - squash**0.5) if lift < 0.05 else 0
        painter.shadow(centre[0], radius * (0.95 - 0.5 * min(lift, 1)))
        painter.ball(centre, radius, COLOURS[self.colours[0]], squash=squash)


class SpringBlock(Event):
    """A block swings up and down on a spring: a sine whose period does not depend on its height."""

    phenomenon, variant = "elastic_motion", "spring"
    half: float | np.ndarray

    def simulate(self, knobs: Knobs) -> None:
        region, times = self.region, self.times
        self.half = knobs(4.0, 5.5) * region.scale
        x = self.hook = region.centre + knobs.rng.uniform(-0.1, 0.1) * region.width
        rest, amplitude, period = knobs.rng.uniform(28, 31), knobs(6.0, 11.0), knobs(0.8, 1.3)
        phase = knobs.rng.uniform(0, 2 * np.pi)
        turn = 2 * np.pi * times / period + phase
        self.state = {
            "position": np.stack([np.full(len(times), x), rest + amplitude * np.cos(turn)], 1),
            "velocity": np.stack([np.zeros(len(times)), -amplitude * 2 * np.pi / period * np.sin(turn)], 1),
            "period": np.array(period),
        }

    def draw(self, painter: Painter, moment: int) -> None:
        (x, y), h = self.at("position", moment), self.at("half", moment)
        colour = COLOURS[self.colours[0]]
        hook = self.at("hook", moment)
        painter.rectangle(hook - 9, 3, hook + 9, 6, DARK_STEEL)
        top, bottom, coils = 6.0, y - h, 9
        ys = np.linspace(top, bottom, coils + 1)
        xs = np.linspace(hook, x, coils + 1) + np.where(np.arange(coils + 1) % 2, 3.4, -3.4)
        xs[[0, -1]] = hook, x
        for i in range(coils):
            painter.line((xs[i], ys[i]), (xs[i + 1], ys[i + 1]), 1.5, STEEL, act=True)
        painter.rectangle(x - h, y - h, x + h, y + h, mix(colour, (0, 0, 0), 0.3), act=True)
        painter.rectangle(x - h * 0.78, y - h * 0.8, x + h * 0.78, y + h * 0.78, colour)


def draw_tank(painter: Painter, left: float, right: float, top: float) -> None:
    """The walls and floor of a glass vessel standing on the ground."""
    painter.line((left - 0.8, top), (left - 0.8, FLOOR), 1.6, STEEL)
    painter.line((right + 0.8, top), (right + 0.8, FLOOR), 1.6, STEEL)
    painter.line((left - 1.6, FLOOR + 0.2), (right + 1.6, FLOOR + 0.2), 1.8, STEEL)


class SloshingTank(Event):
    """Liquid swings from side to side in a tank: the first standing wave; the volume never changes."""

    phenomenon, variant = "liquid_motion", "slosh"

    @staticmethod
    def vessel(region: Region) -> Region:
        """Between the walls of the tank."""
        return region.around(region.width / 2 * 0.78)

    def simulate(self, knobs: Knobs) -> None:
        region, times = self.region, self.times
        tank = self.vessel(region)
        self.left, self.right = tank.left, tank.right
        level, amplitude, period = knobs.rng.uniform(13, 19), knobs(4.5, 8.0), knobs(0.9, 1.5)
        phase = knobs.rng.uniform(0, 2 * np.pi)
        turn = 2 * np.pi * times / period + phase
        x = np.linspace(-1, 1, 25)
        second = 0.16 * amplitude * np.cos(2.7 * turn)
        surface = (
            level + amplitude * np.cos(turn)[:, None] * np.sin(np.pi * x / 2) + second[:, None] * np.cos(np.pi * x)
        )
        self.state = {"surface": surface, "level": np.array(level), "period": np.array(period)}
        self.xs = np.linspace(self.left, self.right, 25)

    def draw(self, painter: Painter, moment: int) -> None:
        colour = COLOURS[self.colours[0]]
        painter.blend_polygon(
            [(self.left, FLOOR - 30), (self.right, FLOOR - 30), (self.right, FLOOR), (self.left, FLOOR)], GLASS, 0.35
        )
        ys = FLOOR - self.at("surface", moment)
        outline = np.concatenate([np.stack([self.xs, ys], 1), [(self.right, FLOOR), (self.left, FLOOR)]])
        painter.polygon(outline, colour, act=True)
        for i in range(24):
            painter.line((self.xs[i], ys[i] + 0.6), (self.xs[i + 1], ys[i + 1] + 0.6), 1.5, mix(colour, WHITE, 0.55))
        draw_tank(painter, self.left, self.right, FLOOR - 30)


class PouringTap(Event):
    """A tap fills a glass: the level rises at a constant rate, as much as flows in."""

    phenomenon, variant = "liquid_motion", "pour"

    @staticmethod
    def vessel(region: Region) -> Region:
        """Between the walls of the glass."""
        return region.around(9.0 * region.scale)

    def simulate(self, knobs: Knobs) -> None:
        region, times = self.region, self.times
        glass = self.vessel(region)
        self.left, self.right = glass.left, glass.right
        rate, start = knobs(7.0, 12.0), knobs.rng.uniform(1.5, 4.0)
        rate /= self.stage.stretch
        self.begin = knobs.rng.uniform(0.0, 0.2)
        flowing = np.maximum(times - self.begin - 0.2, 0)
        self.state = {"level": np.minimum(start + rate * flowing, 23.0), "rate": np.array(rate)}

    def draw(self, painter: Painter, moment: int) -> None:
        colour, x = COLOURS[self.colours[0]], (self.left + self.right) / 2
        level = FLOOR - self.at("level", moment)
        painter.rectangle(x - 3, 6, x + 3, 13, STEEL)
        painter.rectangle(x - 9, 6, x + 3, 9, STEEL)
        painter.rectangle(x - 8, 3, x - 4, 6, DARK_STEEL)
        painter.blend_polygon(
            [(self.left, FLOOR - 26), (self.right, FLOOR - 26), (self.right, FLOOR), (self.left, FLOOR)], GLASS, 0.35
        )
        head = min(13 + max(self.times[moment] - self.begin, 0) * 220, level + 1)
        if head > 13.5:
            wobble = 0.3 * np.sin(self.tick(moment) * 1.9)
            painter.line((x, 13), (x + wobble, head), 3.2, colour, act=True)
            painter.line((x - 0.7, 13), (x - 0.7 + wobble, head), 0.9, mix(colour, WHITE, 0.5))
        painter.rectangle(self.left, level, self.right, FLOOR, colour, act=True)
        painter.rectangle(self.left, level, self.right, level + 1.4, mix(colour, WHITE, 0.55))
        if head > level - 1:
            painter.ellipse((x, level + 0.4), (4.2, 1.3), mix(colour, WHITE, 0.75))
        draw_tank(painter, self.left, self.right, FLOOR - 26)


class RisingSmoke(Event):
    """Smoke rises from a chimney, curls and thins out: a buoyant grid fluid."""

    phenomenon, variant = "gas_motion", "smoke"

    def simulate(self, knobs: Knobs) -> None:
        region, times = self.region, self.times
        self.x = region.centre + knobs.rng.uniform(-0.08, 0.08) * region.width
        cells = (27, int(region.width / 2))
        wind = knobs.sign() * knobs(0.0, 0.035)
        buoyancy = knobs(0.16, 0.3)
        detail = self.stage.detail
        self.density = plume(
            knobs.rng,
            cells,
            times,
            ((self.x - region.left) / (region.width / cells[1]), 20.0, 1.7 * region.scale),
            buoyancy=buoyancy,
            swirl=0.5,
            wind=wind,
            cooling=0.02,
            warm_up=6,
            detail=detail,
        )
        self.state = self.measured() | {"wind": np.array(wind), "buoyancy": np.array(buoyancy)}

    def measured(self) -> dict[str, np.ndarray]:
        """The part of the state that follows from the density."""
        detail = self.stage.detail
        rows = (np.arange(self.density.shape[1])[None, :, None] + 0.5) / detail - 0.5
        mass = self.density.sum((1, 2)) / detail**2
        return {"centroid_height": FLOOR - 2 * (self.density * rows).sum((1, 2)) / detail**2 / mass, "mass": mass}

    def draw(self, painter: Painter, moment: int) -> None:
        density = np.zeros((32 * self.stage.detail, self.density.shape[2]), np.float32)
        density[: self.density.shape[1]] = self.density[moment]
        colour = np.array(COLOURS[self.colours[0]], np.float32)
        field = colour * 0.75 + 0.25 * 255 - 34 * np.clip(density, 0, 1)[..., None]
        painter.field(np.clip(density * 1.5, 0, 0.92), field)
        painter.rectangle(self.x - 4.5, FLOOR - 14, self.x + 4.5, FLOOR, (150, 84, 66))
        painter.rectangle(self.x - 5.5, FLOOR - 16, self.x + 5.5, FLOOR - 12.5, (120, 62, 50))
        for y in (FLOOR - 9.5, FLOOR - 5):
            painter.rectangle(self.x - 4.5, y, self.x + 4.5, y + 0.9, (178, 116, 96))


class PressedClay(Event):
    """A press squeezes a block of soft clay: it gets flatter and wider, its area stays."""

    phenomenon, variant = "deformation", "press"

    def simulate(self, knobs: Knobs) -> None:
        region, times = self.region, self.times
        self.x = region.centre
        half_width, height = knobs(5.0, 6.5) * region.scale, knobs(17.0, 22.0)
        final = height * knobs(0.42, 0.55)
        begin, end = (self.stage.stretch * at for at in (knobs.rng.uniform(0.2, 0.4), knobs.rng.uniform(1.3, 1.6)))
        share = np.clip((times - begin) / (end - begin), 0, 1)
        heights = height + (final - height) * share
        retreat = np.clip((times - end - 0.1) * 26, 0, None)
        touch = FLOOR - height - 9
        plate = np.where(begin > times, touch + 9.0 * times / begin, FLOOR - heights - retreat)
        self.state = {"height": heights, "half_width": half_width * height / heights, "plate": plate}

    def draw(self, painter: Painter, moment: int) -> None:
        colour = COLOURS[self.colours[0]]
        height, half, plate = (self.at(name, moment) for name in ("height", "half_width", "plate"))
        painter.shadow(self.x, half * 1.05)
        bulge = 1 + 0.2 * (half / self.state["half_width"][0] - 1)
        ys = np.linspace(0, 1, 9)
        side = half * (0.92 + 0.08 * bulge * np.sin(np.pi * ys) * 2.2)
        outline = np.concatenate(
            [
                np.stack([self.x - side, FLOOR - height * (1 - ys)], 1),
                np.stack([self.x + side, FLOOR - height * (1 - ys)], 1)[::-1],
            ]
        )
        painter.polygon(outline, mix(colour, (0, 0, 0), 0.28), act=True)
        painter.polygon((outline - (self.x, FLOOR - height / 2)) * (0.84, 0.8) + (self.x, FLOOR - height / 2), colour)
        painter.rectangle(self.x - 2, 0, self.x + 2, plate - 3, STEEL)
        painter.rectangle(self.x - 12, plate - 4, self.x + 12, plate, DARK_STEEL)
