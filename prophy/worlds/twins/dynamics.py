"""Impossible twins of dynamics."""

from __future__ import annotations

import numpy as np

from prophy.worlds.dynamics import (
    BallCollision,
    BouncingBall,
    PouringTap,
    PressedClay,
    RisingSmoke,
    RollingWheel,
    SloshingTank,
    SpringBlock,
    TumblingCrate,
    bounces,
)
from prophy.worlds.stage import FLOOR
from prophy.worlds.twins.register import Rng, changing_pace, elapsed, growth, move, quickening, rows_at, twin, uneven


def _meeting(balls: BallCollision) -> float:
    """Seconds at which the two touch."""
    (first, second), (fast, slow) = balls.state["position"][0, :, 0], balls.state["velocity"][0, :, 0]
    return float((second - first - 2 * np.sqrt(balls.state["radius"].prod())) / (fast - slow))


def _parting(balls: BallCollision, after: np.ndarray) -> None:
    """Let the two part with other speeds, ``(2,)``."""
    before, met = balls.state["velocity"][0, :, 0].copy(), _meeting(balls)
    since = (balls.times - met)[:, None]
    balls.state["position"][..., 0] = (
        balls.state["position"][0, :, 0] + before * met + np.minimum(since, 0) * before + np.maximum(since, 0) * after
    )
    balls.state["velocity"][..., 0] = np.where(since < 0, before, after)
    balls.state["restitution"] = np.array((after[1] - after[0]) / (before[0] - before[1]))


@twin(BallCollision, "momentum", "one ball bounces off as fast as it came, the other hardly moves")
def _momentum(balls: BallCollision, rng: Rng) -> None:
    before = balls.state["velocity"][0, :, 0]
    carried = np.abs(before) * balls.state["mass"]
    _parting(balls, -before * np.where(carried == carried.max(), 1.0, rng.uniform(0.1, 0.3)))


def _leaving(balls: BallCollision, after: np.ndarray) -> np.ndarray:
    """Seconds at which balls that part with these speeds come to the edge, ``(2,)``."""
    met, radius = _meeting(balls), balls.state["radius"]
    touch = balls.state["position"][0, :, 0] + balls.state["velocity"][0, :, 0] * met
    room = np.where(after > 0, balls.region.right - radius - touch, touch - radius - balls.region.left)
    return met + room / np.maximum(np.abs(after), 1e-6)


@twin(BallCollision, "energy", "they part faster than they met")
def _energy(balls: BallCollision, rng: Rng) -> None:
    before, mass = balls.state["velocity"][0, :, 0], balls.state["mass"]
    middle = (mass @ before) / mass.sum()  # the velocity of both together, which stays
    inner, whole = mass @ (before - middle) ** 2, mass @ before**2
    for gain in np.linspace(rng.uniform(0.4, 0.5), 0.3, 6):  # less where they would be gone too soon to be seen
        after = middle - (before - middle) * np.sqrt(1 + gain * whole / inner)
        if (_leaving(balls, after) > _meeting(balls) + 0.5).all():
            break
    _parting(balls, after)


@twin(BallCollision, "uniform motion", "on their way they dawdle, then hurry, though nothing touches them")
def _dawdling(balls: BallCollision, rng: Rng) -> None:
    """Within what is seen of them without contact, so that their mean speeds stay."""
    met, times, position = _meeting(balls), balls.times, balls.state["position"].copy()
    before, after = balls.state["velocity"][0, :, 0], balls.state["velocity"][-1, :, 0]
    leaving = np.minimum(_leaving(balls, after), times[-1])
    for speed, begin, end in ((before, 0.0, np.full(2, met - 0.19)), (after, met + 0.19, leaving)):
        share = np.clip((times[:, None] - begin) / (end - begin), 0, 1)
        position[..., 0] -= 0.17 * speed * (end - begin) * (1 - np.cos(2 * np.pi * share))
    move(balls, position)


@twin(BallCollision, "size", "before they meet, both balls swell, or shrink, and are as before")
def _breathing_balls(balls: BallCollision, rng: Rng) -> None:
    share = np.clip(balls.times / _meeting(balls), 0, 1)
    swelling = 1 + (0.3 if rng.random() < 0.5 else -0.3) * np.sin(np.pi * share) ** 2
    radius, position = balls.state["radius"] * swelling[:, None], balls.state["position"].copy()
    position[..., 1] = FLOOR - radius
    move(balls, position)
    balls.state["radius"] = radius


twin(RollingWheel, "uniform motion", "the wheel speeds up, or brakes, though nothing pushes it")(changing_pace)


@twin(RollingWheel, "size", "the wheel grows, or shrinks, as it rolls")
def _swelling_wheel(wheel: RollingWheel, rng: Rng) -> None:
    radius = wheel.state["radius"] * growth(wheel, rng)
    move(wheel, np.stack([wheel.state["position"][:, 0], FLOOR - radius], 1))
    wheel.state["radius"] = radius


@twin(TumblingCrate, "constant gravity", "the crate flies straight on, then drops like a stone")
def _late_gravity(crate: TumblingCrate, rng: Rng) -> None:
    times, angle, half = crate.times, crate.state["angle"], crate.state["half_side"]
    position = crate.state["position"].copy()
    touches = position[:, 1] + half * (np.abs(np.cos(angle)) + np.abs(np.sin(angle))) > FLOOR - 0.3
    landed = int(np.argmax(touches)) if touches.any() else len(times) - 1
    (top, bottom), flown = position[[0, landed], 1], times[: landed + 1]
    begin = rng.uniform(0.62, 0.7) * times[landed]
    speed = max(crate.state["velocity"][0, 1], (1.5 * half - top) / begin)  # it stays in the picture
    falling = np.maximum(flown - begin, 0) / (times[landed] - begin)
    position[: landed + 1, 1] = top + speed * flown + (bottom - top - speed * times[landed]) * falling**2
    move(crate, position)


def _swell(event: TumblingCrate | BouncingBall, half: str, rng: Rng) -> None:
    """What falls grows, or shrinks, and its lowest point moves as before; ``half`` names half its height."""
    grown = event.state[half] * growth(event, rng)
    lifted = np.stack([np.zeros(len(grown)), grown - event.state[half]], 1)
    move(event, event.state["position"] - lifted)
    event.state[half] = grown


@twin(TumblingCrate, "size", "the crate grows, or shrinks, in flight")
def _swelling_crate(crate: TumblingCrate, rng: Rng) -> None:
    _swell(crate, "half_side", rng)


twin(BouncingBall, "constant gravity", "gravity grows: the ball hangs in the air at first, then races")(quickening)


@twin(BouncingBall, "no energy from nothing", "each bounce is higher than the last")
def _gaining(ball: BouncingBall, rng: Rng) -> None:
    ground, (x, top) = FLOOR - float(ball.state["radius"]), ball.state["position"].T
    gained = rng.uniform(1.1, 1.16)
    heights, speeds, squash = bounces(ball.times, ground - top[0], float(ball.state["gravity"]), gained)
    ball.state |= {
        "position": np.stack([x, ground - heights], 1),
        "velocity": np.stack([ball.state["velocity"][:, 0], speeds], 1),
        "squash": squash,
        "restitution": np.array(gained),
    }


@twin(BouncingBall, "size", "the ball grows, or shrinks, as it bounces")
def _swelling_ball(ball: BouncingBall, rng: Rng) -> None:
    _swell(ball, "radius", rng)


twin(SpringBlock, "one period", "the block swings faster and faster, or slower and slower")(changing_pace)


@twin(SpringBlock, "straight up and down", "the block swings sideways as well")
def _swaying(block: SpringBlock, rng: Rng) -> None:
    position = block.state["position"].copy()
    sway = 0.18 * np.ptp(position[:, 1]) * rng.choice((-1, 1))
    position[:, 0] += sway * np.sin(2 * np.pi * block.times / (1.3 * float(block.state["period"])))
    move(block, position)


@twin(SpringBlock, "size", "the block grows, or shrinks, as it swings")
def _swelling_block(block: SpringBlock, rng: Rng) -> None:
    block.half = block.half * growth(block, rng)


@twin(SloshingTank, "volume", "the liquid grows more, or less, by itself")
def _growing_liquid(tank: SloshingTank, rng: Rng) -> None:
    level = float(tank.state["level"])
    gained = level * (0.35 if level < 16 else -0.35) * elapsed(tank)  # there is room for no more in the tank
    tank.state |= {"surface": tank.state["surface"] + gained[:, None], "level": level + gained}


twin(SloshingTank, "one period", "the liquid swings faster and faster, or slower and slower")(changing_pace)


@twin(PouringTap, "never less", "the tap runs, and of a sudden there is less in the glass")
def _losing(glass: PouringTap, rng: Rng) -> None:
    level = glass.state["level"]
    filled = (level - level[0]) / (level[-1] - level[0])
    lost = rng.uniform(0.25, 0.4) * (level[-1] - level[0])
    glass.state["level"] = level - lost * (filled > rng.uniform(0.45, 0.65))


@twin(PouringTap, "constant inflow", "the tap runs as ever; the level hardly rises at first, or in the end")
def _uneven_filling(glass: PouringTap, rng: Rng) -> None:
    level = glass.state["level"]
    whole = level[-1] - level[0]
    glass.state["level"] = level[0] + whole * uneven((level - level[0]) / whole, rng)


@twin(RisingSmoke, "moves upwards", "the smoke sinks back into the chimney")
def _sinking(smoke: RisingSmoke, rng: Rng) -> np.ndarray:
    return rows_at(smoke, np.linspace(1, 0, smoke.stage.frames))


@twin(RisingSmoke, "leaves the chimney", "the smoke begins in the air, far above the chimney")
def _detached(smoke: RisingSmoke, rng: Rng) -> None:
    cells = round(rng.uniform(8, 9.5) * smoke.stage.detail)  # of two units
    above = np.zeros_like(smoke.density)
    above[:, :-cells] = smoke.density[:, cells:]
    smoke.density = above
    smoke.state |= smoke.measured()


@twin(PressedClay, "area", "the clay is pressed away: it hardly gets wider")
def _vanishing(clay: PressedClay, rng: Rng) -> None:
    width = clay.state["half_width"]
    clay.state["half_width"] = width[0] * (width / width[0]) ** rng.uniform(0.25, 0.4)


def _pressed(clay: PressedClay) -> tuple[np.ndarray, np.ndarray]:
    """How far the clay is pressed, 0 to 1: with a relapse, and the nearest to it without one."""
    height = clay.state["height"]
    progress = (height[0] - height) / (height[0] - height[-1])
    relapse = np.interp(progress, (0, 0.35, 0.65, 1), (0, 0.56, 0.34, 1))
    return relapse, np.where(progress < 0.5, np.minimum(relapse, 0.45), np.maximum(relapse, 0.45))


@twin(PressedClay, "only flatter", "halfway the clay rises and lifts the press")
def _rising(clay: PressedClay, rng: Rng) -> None:
    height = clay.state["height"]
    area, fallen = height[0] * clay.state["half_width"][0], height[0] - height[-1]
    relapse, steady = (height[0] - fallen * progress for progress in _pressed(clay))
    clay.state |= {"plate": clay.state["plate"] + height - relapse, "height": relapse, "half_width": area / steady}


@twin(PressedClay, "only wider", "halfway the clay draws itself in under the press")
def _narrowing(clay: PressedClay, rng: Rng) -> None:
    width, height = clay.state["half_width"], clay.state["height"]
    area, widened = height[0] * width[0], width[-1] - width[0]
    relapse, steady = (width[0] + widened * progress for progress in _pressed(clay))
    clay.state |= {
        "half_width": relapse,
        "height": area / steady,
        "plate": clay.state["plate"] + height - area / steady,
    }
