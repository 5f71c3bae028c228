"""Impossible twins: for every law of every scene, what breaks just that law and leaves its others alone.

A twin is a clip's scene once more: the same parameters, looks, colours and place; only its state is changed after it
was simulated, before it is painted, so that masks and states are of what is drawn. Where two laws bind one another
(what is pressed flatter at a constant area gets wider), the one is broken within what the trackers allow the other.
Ours; pairs of a possible and an impossible clip with the same looks are asked for by LikePhys (arXiv 2510.11512).

The laws are those that :mod:`prophy.evaluation.judges.trackers` measures, by their names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import cv2
import numpy as np

from prophy.worlds.clocks import FINER
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
from prophy.worlds.event import Event
from prophy.worlds.optics import FogBeam, GlassBeam, MirrorBeam, NeonLamp, RippleTank
from prophy.worlds.placed import Placed
from prophy.worlds.stage import FLOOR
from prophy.worlds.thermodynamics import (
    BoilingPot,
    Bomb,
    BurningCandle,
    BurningLogs,
    CondensingPlate,
    FreezingTank,
    MeltingBlock,
)

E = TypeVar("E", bound=Event)
Rng = np.random.Generator


@dataclass(frozen=True)
class Twin:
    """How one law of a scene is broken.

    Attributes:
        seen: what one sees, for documents and sheets.
        breach: changes an event that was simulated at :func:`prophy.worlds.clocks.fine_times`. It returns the rows of
            these times to draw, one for each frame, or None where time goes by as ever.
    """

    seen: str
    breach: Callable[[Any, Rng], np.ndarray | None]


@dataclass(frozen=True)
class Broken:
    """The law that a clip breaks.

    Attributes:
        law: its name.
        event: which of the clip's events breaks it, from 0; the other stays lawful.
    """

    law: str
    event: int = 0


#: (phenomenon, variant) -> the twin of each of the scene's laws, by the law's name
TWINS: dict[tuple[str, str], dict[str, Twin]] = {}


def twin(kind: type[E], law: str, seen: str) -> Callable[[Callable[[E, Rng], np.ndarray | None]], Any]:
    """Register what breaks a law of a scene."""

    def register(breach: Callable[[E, Rng], np.ndarray | None]) -> Callable[[E, Rng], np.ndarray | None]:
        TWINS.setdefault((kind.phenomenon, kind.variant), {})[law] = Twin(seen, breach)
        return breach

    return register


def twin_of(events: tuple[Placed, ...], broken: Broken) -> Twin:
    """The twin that a clip of these events is asked for.

    Raises:
        ValueError: the clip has no such event, or the event's scene no such law.
    """
    if not 0 <= broken.event < len(events):
        raise ValueError(f"the clip has no event {broken.event}: it shows {len(events)}, counted from 0")
    event = events[broken.event]
    laws = TWINS[event.phenomenon, event.variant]
    if broken.law not in laws:
        raise ValueError(
            f"{event.phenomenon} ({event.variant}) has no law {broken.law!r}: break one of {', '.join(laws)}"
        )
    return laws[broken.law]


# --- what several of them do ------------------------------------------------------------------------------------------


def _share(event: Event) -> np.ndarray:
    """How much of the clip has gone by, 0 to 1, ``(T,)``."""
    return event.times / event.times[-1]


def _frames_at(event: Event, share_F: np.ndarray) -> np.ndarray:
    """The rows to draw so that frame by frame so much of the clip seems to have gone by."""
    return np.round(share_F * FINER * (event.stage.frames - 1)).astype(int)


def _quickening(event: Event, rng: Rng) -> np.ndarray:
    """It runs at a quarter of its pace at first, at seven times that in the end."""
    u = np.linspace(0, 1, event.stage.frames)
    return _frames_at(event, u - 0.75 * u * (1 - u))


def _changing_pace(event: Event, rng: Rng) -> np.ndarray:
    """It quickens, or slows down as much."""
    rows = _quickening(event, rng)
    return rows if rng.random() < 0.5 else rows[-1] - rows[::-1]


def _swelling(event: Event, rng: Rng) -> np.ndarray:
    """Factors of a thing that grows, or shrinks, ``(T,)``."""
    return 1 + (0.5 if rng.random() < 0.5 else -0.45) * _share(event)


def _relapsing(progress: np.ndarray) -> np.ndarray:
    """A progress from 0 to 1 that runs ahead, goes back by a third of the way, and arrives in the end."""
    return np.interp(progress, (0, 0.35, 0.65, 1), (0, 0.62, 0.28, 1))


def _uneven(progress: np.ndarray, rng: Rng) -> np.ndarray:
    """A progress from 0 to 1 that is slow at first and fast in the end, or the other way round."""
    power = rng.uniform(2.8, 3.4)
    return progress**power if rng.random() < 0.5 else 1 - (1 - progress) ** power


def _place(event: Event, position: np.ndarray) -> None:
    """Put what moves somewhere else, ``(T, …, 2)``, and give it the velocity that it has then."""
    event.state |= {"position": position, "velocity": np.gradient(position, event.times, axis=0)}


# --- dynamics ---------------------------------------------------------------------------------------------------------


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
    _place(balls, position)


@twin(BallCollision, "size", "before they meet, both balls swell, or shrink, and are as before")
def _breathing_balls(balls: BallCollision, rng: Rng) -> None:
    share = np.clip(balls.times / _meeting(balls), 0, 1)
    swelling = 1 + (0.3 if rng.random() < 0.5 else -0.3) * np.sin(np.pi * share) ** 2
    radius, position = balls.state["radius"] * swelling[:, None], balls.state["position"].copy()
    position[..., 1] = FLOOR - radius
    _place(balls, position)
    balls.state["radius"] = radius


twin(RollingWheel, "uniform motion", "the wheel speeds up, or brakes, though nothing pushes it")(_changing_pace)


@twin(RollingWheel, "size", "the wheel grows, or shrinks, as it rolls")
def _swelling_wheel(wheel: RollingWheel, rng: Rng) -> None:
    radius = wheel.state["radius"] * _swelling(wheel, rng)
    _place(wheel, np.stack([wheel.state["position"][:, 0], FLOOR - radius], 1))
    wheel.state["radius"] = radius


@twin(TumblingCrate, "constant gravity", "the crate flies straight on, then drops like a stone")
def _late_gravity(crate: TumblingCrate, rng: Rng) -> None:
    (times, angle), position, half = (
        (crate.times, crate.state["angle"]),
        crate.state["position"].copy(),
        crate.state["half_side"],
    )
    touches = position[:, 1] + half * (np.abs(np.cos(angle)) + np.abs(np.sin(angle))) > FLOOR - 0.3
    landed = int(np.argmax(touches)) if touches.any() else len(times) - 1
    (top, bottom), flown = position[[0, landed], 1], times[: landed + 1]
    begin = rng.uniform(0.62, 0.7) * times[landed]
    speed = max(crate.state["velocity"][0, 1], (1.5 * half - top) / begin)  # it stays in the picture
    falling = np.maximum(flown - begin, 0) / (times[landed] - begin)
    position[: landed + 1, 1] = top + speed * flown + (bottom - top - speed * times[landed]) * falling**2
    _place(crate, position)


@twin(TumblingCrate, "size", "the crate grows, or shrinks, in flight")
def _swelling_crate(crate: TumblingCrate, rng: Rng) -> None:
    half = crate.state["half_side"] * _swelling(crate, rng)
    lifted = np.stack([np.zeros(len(half)), half - crate.state["half_side"]], 1)
    _place(crate, crate.state["position"] - lifted)
    crate.state["half_side"] = half


twin(BouncingBall, "constant gravity", "gravity grows: the ball hangs in the air at first, then races")(_quickening)


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
    radius = ball.state["radius"] * _swelling(ball, rng)
    lifted = np.stack([np.zeros(len(radius)), radius - ball.state["radius"]], 1)
    _place(ball, ball.state["position"] - lifted)
    ball.state["radius"] = radius


twin(SpringBlock, "one period", "the block swings faster and faster, or slower and slower")(_changing_pace)


@twin(SpringBlock, "straight up and down", "the block swings sideways as well")
def _swaying(block: SpringBlock, rng: Rng) -> None:
    position = block.state["position"].copy()
    sway = 0.18 * np.ptp(position[:, 1]) * rng.choice((-1, 1))
    position[:, 0] += sway * np.sin(2 * np.pi * block.times / (1.3 * float(block.state["period"])))
    _place(block, position)


@twin(SpringBlock, "size", "the block grows, or shrinks, as it swings")
def _swelling_block(block: SpringBlock, rng: Rng) -> None:
    block.half = block.half * _swelling(block, rng)


@twin(SloshingTank, "volume", "the liquid grows more, or less, by itself")
def _growing_liquid(tank: SloshingTank, rng: Rng) -> None:
    level = float(tank.state["level"])
    gained = level * (0.35 if level < 16 else -0.35) * _share(tank)  # there is room for no more in the tank
    tank.state |= {"surface": tank.state["surface"] + gained[:, None], "level": level + gained}


twin(SloshingTank, "one period", "the liquid swings faster and faster, or slower and slower")(_changing_pace)


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
    glass.state["level"] = level[0] + whole * _uneven((level - level[0]) / whole, rng)


@twin(RisingSmoke, "moves upwards", "the smoke sinks back into the chimney")
def _sinking(smoke: RisingSmoke, rng: Rng) -> np.ndarray:
    return _frames_at(smoke, np.linspace(1, 0, smoke.stage.frames))


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


# --- thermodynamics ---------------------------------------------------------------------------------------------------


def _molten(block: MeltingBlock) -> np.ndarray:
    """How much of what melts has melted, 0 to 1, with a relapse."""
    share = block.state["solid_share"]
    return _relapsing((1 - share) / (1 - share[-1]))


@twin(MeltingBlock, "the solid only shrinks", "halfway the block grows again; its puddle grows on")
def _freezing_back(block: MeltingBlock, rng: Rng) -> None:
    share, molten = block.state["solid_share"], _molten(block)
    for name in ("height", "half_width"):
        first, last = block.state[name][[0, -1]]
        block.state[name] = first + (last - first) * molten
    block.state["solid_share"] = 1 - (1 - share[-1]) * molten


@twin(MeltingBlock, "the puddle only grows", "halfway the puddle shrinks; the block melts on")
def _drying(block: MeltingBlock, rng: Rng) -> None:
    first, last = block.state["puddle_half_width"][[0, -1]]
    block.state["puddle_half_width"] = first + (last - first) * _molten(block)


@twin(FreezingTank, "the front only advances", "the ice draws back, and comes again")
def _thawing(tank: FreezingTank, rng: Rng) -> None:
    tank.state["front"] = tank.state["front"][-1] * _relapsing(tank.state["front"] / tank.state["front"][-1])


@twin(BoilingPot, "the level only sinks", "it boils, and of a sudden there is more in the pot")
def _refilled(pot: BoilingPot, rng: Rng) -> None:
    level = pot.state["level"]
    gained = rng.uniform(0.4, 0.5) * (level[0] - level[-1])
    pot.state["level"] = level + gained * (_share(pot) > rng.uniform(0.42, 0.58))


@twin(BoilingPot, "constant rate", "it boils as ever; the level hardly sinks at first, or in the end")
def _uneven_boiling(pot: BoilingPot, rng: Rng) -> None:
    level = pot.state["level"]
    pot.state["level"] = level[0] + (level[-1] - level[0]) * _uneven(_share(pot), rng)


@twin(CondensingPlate, "drops only grow", "the drops shrink, and fall when they are smallest")
def _shrinking(plate: CondensingPlate, rng: Rng) -> None:
    hangs = (plate.state["fall"] == 0).mean(0)  # share of the clip
    left = 1 - 0.55 * np.minimum(_share(plate)[:, None] / hangs, 1)
    plate.state["radius"] = plate.state["radius"][0] * left


def _put_out(fire: BurningCandle | BurningLogs, begin: float, end: float) -> None:
    """No flame between two shares of the clip."""
    share = _share(fire)
    fire.heat = np.where(((share > begin) & (share < end))[:, None, None], np.float32(0), fire.heat)


@twin(BurningCandle, "stays lit", "the flame is gone for a while, and back; the wax sinks on")
def _unlit_candle(candle: BurningCandle, rng: Rng) -> None:
    begin = rng.uniform(0.25, 0.45)
    _put_out(candle, begin, begin + 0.3)


@twin(BurningCandle, "the wax only sinks", "the candle grows as it burns")
def _growing_candle(candle: BurningCandle, rng: Rng) -> None:
    candle.state["height"] = 2 * candle.state["height"][0] - candle.state["height"]


@twin(BurningLogs, "stays lit", "the flame is gone for a moment, and back")
def _unlit_logs(fire: BurningLogs, rng: Rng) -> None:
    begin = rng.uniform(0.3, 0.6)
    _put_out(fire, begin, begin + 0.115)
    fire.state |= fire.measured()


@twin(BurningLogs, "burns steadily", "the flame is small, and now and then flares up to many times its size")
def _flaring(fire: BurningLogs, rng: Rng) -> None:
    flares = (_share(fire) * 3 + rng.uniform(0, 1)) % 1
    sizes = 0.32 + 0.98 * np.exp(-(((flares - 0.5) / 0.14) ** 2))
    detail, shape = fire.stage.detail, fire.heat.shape[1:]
    y, x = (np.mgrid[: shape[0], : shape[1]].astype(np.float32) + 0.5) / detail - 0.5
    fire.heat = np.stack(
        [
            cv2.remap(
                heat,
                ((8.5 + (x - 8.5) / size + 0.5) * detail - 0.5).astype(np.float32),
                ((20.5 + (y - 20.5) / size + 0.5) * detail - 0.5).astype(np.float32),
                cv2.INTER_LINEAR,
            )
            for heat, size in zip(fire.heat, sizes, strict=True)
        ]
    )
    fire.state |= fire.measured()


def _since(bomb: Bomb) -> tuple[np.ndarray, np.ndarray]:
    """Which moments come after the blast, bool ``(T,)``, and how much of the time left has gone by then, 0 to 1."""
    burst = bomb.state["fireball_radius"] > 0
    begin = int(bomb.state["begin"])
    return burst, np.clip(np.arange(len(burst)) - begin, 0, None) / (len(burst) - 1 - begin)


@twin(Bomb, "the fireball only grows", "the fireball falls back into itself")
def _collapsing(bomb: Bomb, rng: Rng) -> None:
    radius, (burst, share) = bomb.state["fireball_radius"], _since(bomb)
    first, grown = radius[burst][0], 0.85 * (radius[-1] - radius[burst][0])
    peak = rng.uniform(0.5, 0.55)
    bomb.state["fireball_radius"] = np.where(burst, first + grown * (1 - ((share - peak) / peak) ** 2), 0).clip(0)


@twin(Bomb, "the growth slows down", "the fireball comes to rest, and bursts a second time")
def _bursting_again(bomb: Bomb, rng: Rng) -> None:
    radius, (burst, share) = bomb.state["fireball_radius"], _since(bomb)
    first, last = radius[burst][0], radius[-1]
    again = rng.uniform(0.4, 0.5)
    grown = sum(part * (1 - np.exp(-14 * np.maximum(share - at, 0))) for part, at in ((0.4, 0.0), (0.6, again)))
    bomb.state["fireball_radius"] = np.where(burst, first + (last - first) * grown, 0)


# --- optics -----------------------------------------------------------------------------------------------------------


def _bulging(path: np.ndarray, sideways: tuple[float, float]) -> np.ndarray:
    """Bend both rays of a path ``(3, 2)``, alike above and below where they meet, so far to the right at most.

    Their ends stay straight, so that the rays as a whole keep their angles.
    """
    rise = path[1, 1] - path[0, 1]
    rays = []
    for far, start, end in zip(sideways, path[:-1], path[1:], strict=True):
        ray = start + (end - start) * np.linspace(0, 1, 25)[:, None]
        bent = np.clip((np.abs(ray[:, 1] - path[1, 1]) - 5) / (rise - 8), 0, 1)
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
    path = light.state["path"]
    far = rng.uniform(2.4, 2.9) * rng.choice((-1, 1))
    _lead(light, _bulging(path, (-far, far)))


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
    _lead(light, _bulging(light.state["path"], (far, far)))


@twin(FogBeam, "dimmer at the far end", "the farther the beam is, the brighter")
def _gathering(light: FogBeam, rng: Rng) -> None:
    width = light.region.width
    light.state["extinction"] = np.array(-np.log(rng.uniform(2.2, 2.8)) / (0.8 * width - 8))


@twin(RippleTank, "two equal sources", "the waves of one source are hardly there")
def _unequal(tank: RippleTank, rng: Rng) -> None:
    weak = rng.uniform(0.1, 0.25)
    tank.strengths = (weak, 1.0) if rng.random() < 0.5 else (1.0, weak)


twin(NeonLamp, "one period", "the tube blinks faster and faster, or slower and slower")(_changing_pace)
