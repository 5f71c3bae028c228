"""The six phenomena of dynamics: collision, rigid body, elastic, liquid and gas motion, deformation."""

from __future__ import annotations

import numpy as np
import pymunk

from prophy.worlds.event import TIMES, Event
from prophy.worlds.fluid import plume
from prophy.worlds.stage import COLOURS, FLOOR, FPS, FRAMES, Knobs, Painter, Region, mix

_SUBSTEPS = 12  # pymunk steps a frame
STEEL = (122, 130, 142)
DARK_STEEL = (78, 84, 96)
GLASS = (232, 242, 248)
WHITE = (255, 255, 255)


def simulate(space: pymunk.Space, bodies: list[pymunk.Body]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run a pymunk space for a clip; returns positions ``(F, n, 2)``, velocities ``(F, n, 2)``, angles ``(F, n)``."""
    position = np.empty((FRAMES, len(bodies), 2))
    velocity = np.empty((FRAMES, len(bodies), 2))
    angle = np.empty((FRAMES, len(bodies)))
    for frame in range(FRAMES):
        for i, body in enumerate(bodies):
            position[frame, i], velocity[frame, i], angle[frame, i] = body.position, body.velocity, body.angle
        for _ in range(_SUBSTEPS):
            space.step(1 / (FPS * _SUBSTEPS))
    return position, velocity, angle


class BallCollision(Event):
    """Two balls roll towards each other, meet and part: momentum is kept, energy by the restitution."""

    phenomenon, variant, colour_count = "collision", "balls", 2

    def __init__(self, knobs: Knobs, region: Region, colours: tuple[str, ...]) -> None:
        self.colours = colours
        self.radii = np.array([knobs(4.0, 6.0), knobs(4.0, 6.0)]) * region.scale
        restitution = knobs(0.7, 1.0)
        space = pymunk.Space()
        bodies = []
        start = np.array([region.left + self.radii[0] + 0.5, region.right - self.radii[1] - 0.5])
        # balls of different size that roll on one ground touch at this distance of their centres
        touching = 2 * np.sqrt(self.radii.prod())
        closing = (start[1] - start[0] - touching) / knobs(0.7, 1.05)
        share = knobs.rng.uniform(0.4, 0.6)
        for i, (x, speed) in enumerate(zip(start, (closing * share, -closing * (1 - share)), strict=True)):
            mass = self.radii[i] ** 2 / 25
            body = pymunk.Body(mass, float("inf"))
            body.position, body.velocity = (float(x), 0.0), (float(speed), 0.0)
            shape = pymunk.Circle(body, touching / 2)
            shape.elasticity, shape.friction = restitution**0.5, 0.0
            space.add(body, shape)
            bodies.append(body)
        position, velocity, _ = simulate(space, bodies)
        self.state = {
            "position": np.stack([position[..., 0], np.broadcast_to(FLOOR - self.radii, (FRAMES, 2))], -1),
            "velocity": velocity,
            "mass": np.array([body.mass for body in bodies]),
            "radius": self.radii,
            "restitution": np.array(restitution),
        }

    def draw(self, painter: Painter, frame: int) -> None:
        for i, colour in enumerate(self.colours):
            centre = self.state["position"][frame, i]
            painter.shadow(centre[0], self.radii[i] * 0.9)
            painter.ball(centre, self.radii[i], COLOURS[colour])


class RollingWheel(Event):
    """A spoked wheel rolls along the ground without slipping: distance is radius times angle."""

    phenomenon, variant = "rigid_body_motion", "wheel"

    def __init__(self, knobs: Knobs, region: Region, colours: tuple[str, ...]) -> None:
        self.colours = colours
        self.radius = knobs(6.0, 8.0) * region.scale
        travel = region.width - 2 * self.radius - 1
        direction = knobs.sign()
        speed = direction * travel / TIMES[-1] * knobs(0.75, 1.0)
        x = region.centre - direction * travel / 2 + speed * TIMES
        position = np.stack([x, np.full(FRAMES, FLOOR - self.radius)], 1)
        self.state = {
            "position": position,
            "velocity": np.stack([np.full(FRAMES, speed), np.zeros(FRAMES)], 1),
            "angle": (x - x[0]) / self.radius,
            "radius": np.array(self.radius),
        }

    def draw(self, painter: Painter, frame: int) -> None:
        centre, turn = self.state["position"][frame], self.state["angle"][frame]
        colour = COLOURS[self.colours[0]]
        painter.shadow(centre[0], self.radius * 0.8)
        painter.ellipse(centre, (self.radius, self.radius), mix(colour, (0, 0, 0), 0.25), act=True)
        painter.ellipse(centre, (self.radius * 0.74, self.radius * 0.74), mix(colour, WHITE, 0.72))
        for spoke in range(3):
            along = np.array([np.cos(turn + spoke * np.pi / 3), np.sin(turn + spoke * np.pi / 3)]) * self.radius * 0.8
            painter.line(centre - along, centre + along, 1.6, colour)
        painter.ellipse(centre, (1.8, 1.8), mix(colour, (0, 0, 0), 0.4))


class TumblingCrate(Event):
    """A crate is thrown, turns in the air and lands: a parabola and a steady spin until it touches."""

    phenomenon, variant = "rigid_body_motion", "crate"

    def __init__(self, knobs: Knobs, region: Region, colours: tuple[str, ...]) -> None:
        self.colours = colours
        self.half = knobs(4.0, 5.5) * region.scale
        direction = knobs.sign()
        space = pymunk.Space()
        space.gravity = (0, 38.0)
        ground = pymunk.Segment(space.static_body, (-100, FLOOR + 5), (200, FLOOR + 5), 5)
        ground.friction, ground.elasticity = 0.9, 0.2
        mass = self.half**2 / 20
        side = 2 * self.half
        body = pymunk.Body(mass, pymunk.moment_for_box(mass, (side, side)))
        reach = region.width / 2 - self.half - 2
        body.position = (region.centre - direction * reach, knobs.rng.uniform(18, 24))
        body.velocity = (direction * reach * knobs(0.8, 1.3), -knobs(4.0, 14.0))
        body.angular_velocity = direction * knobs(2.0, 5.0)
        shape = pymunk.Poly.create_box(body, (side, side), 0.2)
        shape.friction, shape.elasticity = 0.9, 0.2
        space.add(body, shape, ground)
        position, velocity, angle = simulate(space, [body])
        self.state = {
            "position": position[:, 0],
            "velocity": velocity[:, 0],
            "angle": angle[:, 0],
            "half_side": np.array(self.half),
            "gravity": np.array(38.0),
        }

    def draw(self, painter: Painter, frame: int) -> None:
        centre, angle = self.state["position"][frame], self.state["angle"][frame]
        colour = COLOURS[self.colours[0]]
        c, s = np.cos(angle), np.sin(angle)
        turn = np.array([[c, s], [-s, c]])
        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float) @ turn
        painter.shadow(centre[0], self.half * 0.9)
        painter.polygon(centre + corners * self.half, mix(colour, (0, 0, 0), 0.3), act=True)
        painter.polygon(centre + corners * self.half * 0.76, mix(colour, WHITE, 0.1))
        for a, b in ((0, 2), (1, 3)):
            painter.line(
                centre + corners[a] * self.half * 0.8,
                centre + corners[b] * self.half * 0.8,
                1.5,
                mix(colour, (0, 0, 0), 0.3),
            )


class BouncingBall(Event):
    """A ball drops and bounces, flattening as it touches: each height is restitution² of the last."""

    phenomenon, variant = "elastic_motion", "ball"

    def __init__(self, knobs: Knobs, region: Region, colours: tuple[str, ...]) -> None:
        self.colours = colours
        self.radius = knobs(5.0, 7.0) * region.scale
        drop = knobs(24.0, 38.0)
        gravity = knobs(90.0, 130.0)
        restitution = knobs(0.78, 0.92)
        height, speed = drop, 0.0
        heights, speeds, contact = np.empty(FRAMES), np.empty(FRAMES), np.zeros(FRAMES)
        dt = 1 / (FPS * 60)
        since_touch = 9.0
        for frame in range(FRAMES):
            heights[frame], speeds[frame] = height, speed
            contact[frame] = max(0.0, 1.0 - since_touch / 0.07)
            for _ in range(60):
                speed += gravity * dt
                height -= speed * dt
                since_touch += dt
                if height < 0:
                    height, speed, since_touch = 0.0, -restitution * abs(speed), 0.0
        x = region.centre + knobs.rng.uniform(-0.12, 0.12) * region.width
        drift = knobs.sign() * knobs.rng.uniform(0, 3.0)
        self.state = {
            "position": np.stack([x + drift * (TIMES - 1), FLOOR - self.radius - heights], 1),
            "velocity": np.stack([np.full(FRAMES, drift), speeds], 1),
            "squash": 1.0 - 0.34 * np.maximum(contact, (heights < 1.0) * 0.7),
            "radius": np.array(self.radius),
            "gravity": np.array(gravity),
            "restitution": np.array(restitution),
        }

    def draw(self, painter: Painter, frame: int) -> None:
        centre, squash = self.state["position"][frame].copy(), self.state["squash"][frame]
        lift = (FLOOR - self.radius - centre[1]) / 40
        centre[1] += self.radius * (1 - squash**0.5) if lift < 0.05 else 0
        painter.shadow(centre[0], self.radius * (0.95 - 0.5 * min(lift, 1)))
        painter.ball(centre, self.radius, COLOURS[self.colours[0]], squash=squash)


class SpringBlock(Event):
    """A block swings up and down on a spring: a sine whose period does not depend on its height."""

    phenomenon, variant = "elastic_motion", "spring"

    def __init__(self, knobs: Knobs, region: Region, colours: tuple[str, ...]) -> None:
        self.colours = colours
        self.half = knobs(4.0, 5.5) * region.scale
        self.x = region.centre + knobs.rng.uniform(-0.1, 0.1) * region.width
        rest, amplitude, period = knobs.rng.uniform(28, 31), knobs(6.0, 11.0), knobs(0.8, 1.3)
        phase = knobs.rng.uniform(0, 2 * np.pi)
        turn = 2 * np.pi * TIMES / period + phase
        self.state = {
            "position": np.stack([np.full(FRAMES, self.x), rest + amplitude * np.cos(turn)], 1),
            "velocity": np.stack([np.zeros(FRAMES), -amplitude * 2 * np.pi / period * np.sin(turn)], 1),
            "period": np.array(period),
        }

    def draw(self, painter: Painter, frame: int) -> None:
        y = self.state["position"][frame, 1]
        colour = COLOURS[self.colours[0]]
        painter.rectangle(self.x - 9, 3, self.x + 9, 6, DARK_STEEL)
        top, bottom, coils = 6.0, y - self.half, 9
        ys = np.linspace(top, bottom, coils + 1)
        xs = self.x + np.where(np.arange(coils + 1) % 2, 3.4, -3.4)
        xs[[0, -1]] = self.x
        for i in range(coils):
            painter.line((xs[i], ys[i]), (xs[i + 1], ys[i + 1]), 1.5, STEEL, act=True)
        h = self.half
        painter.rectangle(self.x - h, y - h, self.x + h, y + h, mix(colour, (0, 0, 0), 0.3), act=True)
        painter.rectangle(self.x - h * 0.78, y - h * 0.8, self.x + h * 0.78, y + h * 0.78, colour)


def tank(painter: Painter, left: float, right: float, top: float) -> None:
    """The walls and floor of a glass vessel standing on the ground."""
    painter.line((left - 0.8, top), (left - 0.8, FLOOR), 1.6, STEEL)
    painter.line((right + 0.8, top), (right + 0.8, FLOOR), 1.6, STEEL)
    painter.line((left - 1.6, FLOOR + 0.2), (right + 1.6, FLOOR + 0.2), 1.8, STEEL)


class SloshingTank(Event):
    """Liquid swings from side to side in a tank: the first standing wave; the volume never changes."""

    phenomenon, variant = "liquid_motion", "slosh"

    def __init__(self, knobs: Knobs, region: Region, colours: tuple[str, ...]) -> None:
        self.colours = colours
        half = region.width / 2 * 0.78
        self.left, self.right = region.centre - half, region.centre + half
        level, amplitude, period = knobs.rng.uniform(13, 19), knobs(4.5, 8.0), knobs(0.9, 1.5)
        phase = knobs.rng.uniform(0, 2 * np.pi)
        turn = 2 * np.pi * TIMES / period + phase
        x = np.linspace(-1, 1, 25)
        second = 0.16 * amplitude * np.cos(2.7 * turn)
        surface = (
            level + amplitude * np.cos(turn)[:, None] * np.sin(np.pi * x / 2) + second[:, None] * np.cos(np.pi * x)
        )
        self.state = {"surface": surface, "level": np.array(level), "period": np.array(period)}
        self.xs = np.linspace(self.left, self.right, 25)

    def draw(self, painter: Painter, frame: int) -> None:
        colour = COLOURS[self.colours[0]]
        painter.blend_polygon(
            [(self.left, FLOOR - 30), (self.right, FLOOR - 30), (self.right, FLOOR), (self.left, FLOOR)], GLASS, 0.35
        )
        ys = FLOOR - self.state["surface"][frame]
        outline = np.concatenate([np.stack([self.xs, ys], 1), [(self.right, FLOOR), (self.left, FLOOR)]])
        painter.polygon(outline, colour, act=True)
        for i in range(24):
            painter.line((self.xs[i], ys[i] + 0.6), (self.xs[i + 1], ys[i + 1] + 0.6), 1.5, mix(colour, WHITE, 0.55))
        tank(painter, self.left, self.right, FLOOR - 30)


class PouringTap(Event):
    """A tap fills a glass: the level rises at a constant rate, as much as flows in."""

    phenomenon, variant = "liquid_motion", "pour"

    def __init__(self, knobs: Knobs, region: Region, colours: tuple[str, ...]) -> None:
        self.colours = colours
        half = 9.0 * region.scale
        self.left, self.right = region.centre - half, region.centre + half
        rate, start = knobs(7.0, 12.0), knobs.rng.uniform(1.5, 4.0)
        self.begin = knobs.rng.uniform(0.0, 0.2)
        flowing = np.maximum(TIMES - self.begin - 0.2, 0)
        self.state = {"level": np.minimum(start + rate * flowing, 23.0), "rate": np.array(rate)}

    def draw(self, painter: Painter, frame: int) -> None:
        colour, x = COLOURS[self.colours[0]], (self.left + self.right) / 2
        level = FLOOR - self.state["level"][frame]
        painter.rectangle(x - 3, 6, x + 3, 13, STEEL)
        painter.rectangle(x - 9, 6, x + 3, 9, STEEL)
        painter.rectangle(x - 8, 3, x - 4, 6, DARK_STEEL)
        painter.blend_polygon(
            [(self.left, FLOOR - 26), (self.right, FLOOR - 26), (self.right, FLOOR), (self.left, FLOOR)], GLASS, 0.35
        )
        head = min(13 + max(TIMES[frame] - self.begin, 0) * 220, level + 1)
        if head > 13.5:
            wobble = 0.3 * np.sin(frame * 1.9)
            painter.line((x, 13), (x + wobble, head), 3.2, colour, act=True)
            painter.line((x - 0.7, 13), (x - 0.7 + wobble, head), 0.9, mix(colour, WHITE, 0.5))
        painter.rectangle(self.left, level, self.right, FLOOR, colour, act=True)
        painter.rectangle(self.left, level, self.right, level + 1.4, mix(colour, WHITE, 0.55))
        if head > level - 1:
            painter.ellipse((x, level + 0.4), (4.2, 1.3), mix(colour, WHITE, 0.75))
        tank(painter, self.left, self.right, FLOOR - 26)


class RisingSmoke(Event):
    """Smoke rises from a chimney, curls and thins out: a buoyant grid fluid."""

    phenomenon, variant = "gas_motion", "smoke"

    def __init__(self, knobs: Knobs, region: Region, colours: tuple[str, ...]) -> None:
        self.colours = colours
        self.x = region.centre + knobs.rng.uniform(-0.08, 0.08) * region.width
        cells = (27, int(region.width / 2))
        wind = knobs.sign() * knobs(0.0, 0.035)
        buoyancy = knobs(0.16, 0.3)
        self.density = plume(
            knobs.rng,
            cells,
            FRAMES,
            ((self.x - region.left) / 2, 20.0, 1.7 * region.scale),
            buoyancy=buoyancy,
            swirl=0.5,
            wind=wind,
            cooling=0.02,
            warm_up=6,
        )
        rows = np.arange(cells[0])[None, :, None]
        mass = self.density.sum((1, 2))
        self.state = {
            "centroid_height": FLOOR - 2 * (self.density * rows).sum((1, 2)) / mass,
            "mass": mass,
            "wind": np.array(wind),
            "buoyancy": np.array(buoyancy),
        }

    def draw(self, painter: Painter, frame: int) -> None:
        alpha = np.zeros((32, self.density.shape[2]), np.float32)
        alpha[:27] = np.clip(self.density[frame] * 1.5, 0, 0.92)
        light = np.clip(self.density[frame], 0, 1)
        colour = np.array(COLOURS[self.colours[0]], np.float32)
        field = np.zeros((32, self.density.shape[2], 3), np.float32)
        field[:] = colour * 0.75 + 0.25 * 255
        field[:27] -= 34 * light[..., None]
        painter.field(alpha, field)
        painter.rectangle(self.x - 4.5, FLOOR - 14, self.x + 4.5, FLOOR, (150, 84, 66))
        painter.rectangle(self.x - 5.5, FLOOR - 16, self.x + 5.5, FLOOR - 12.5, (120, 62, 50))
        for y in (FLOOR - 9.5, FLOOR - 5):
            painter.rectangle(self.x - 4.5, y, self.x + 4.5, y + 0.9, (178, 116, 96))


class PressedClay(Event):
    """A press squeezes a block of soft clay: it gets flatter and wider, its area stays."""

    phenomenon, variant = "deformation", "press"

    def __init__(self, knobs: Knobs, region: Region, colours: tuple[str, ...]) -> None:
        self.colours = colours
        self.x = region.centre
        half_width, height = knobs(5.0, 6.5) * region.scale, knobs(17.0, 22.0)
        final = height * knobs(0.42, 0.55)
        begin, end = knobs.rng.uniform(0.2, 0.4), knobs.rng.uniform(1.3, 1.6)
        share = np.clip((TIMES - begin) / (end - begin), 0, 1)
        heights = height + (final - height) * share
        retreat = np.clip((TIMES - end - 0.1) * 26, 0, None)
        touch = FLOOR - height - 9
        plate = np.where(begin > TIMES, touch + 9.0 * TIMES / begin, FLOOR - heights - retreat)
        self.state = {"height": heights, "half_width": half_width * height / heights, "plate": plate}

    def draw(self, painter: Painter, frame: int) -> None:
        colour = COLOURS[self.colours[0]]
        height, half = self.state["height"][frame], self.state["half_width"][frame]
        plate = self.state["plate"][frame]
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
