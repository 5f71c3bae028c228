"""Impossible twins of thermodynamics."""

from __future__ import annotations

import cv2
import numpy as np

from prophy.worlds.thermodynamics import (
    BoilingPot,
    Bomb,
    BurningCandle,
    BurningLogs,
    CondensingPlate,
    FreezingTank,
    MeltingBlock,
)
from prophy.worlds.twins.register import Rng, elapsed, relapsing, twin, uneven


def _molten(block: MeltingBlock) -> np.ndarray:
    """How much of what melts has melted, 0 to 1, with a relapse."""
    share = block.state["solid_share"]
    return relapsing((1 - share) / (1 - share[-1]))


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
    tank.state["front"] = tank.state["front"][-1] * relapsing(tank.state["front"] / tank.state["front"][-1])


@twin(BoilingPot, "the level only sinks", "it boils, and of a sudden there is more in the pot")
def _refilled(pot: BoilingPot, rng: Rng) -> None:
    level = pot.state["level"]
    gained = rng.uniform(0.4, 0.5) * (level[0] - level[-1])
    pot.state["level"] = level + gained * (elapsed(pot) > rng.uniform(0.42, 0.58))


@twin(BoilingPot, "constant rate", "it boils as ever; the level hardly sinks at first, or in the end")
def _uneven_boiling(pot: BoilingPot, rng: Rng) -> None:
    level = pot.state["level"]
    pot.state["level"] = level[0] + (level[-1] - level[0]) * uneven(elapsed(pot), rng)


@twin(CondensingPlate, "drops only grow", "the drops shrink, and fall when they are smallest")
def _shrinking(plate: CondensingPlate, rng: Rng) -> None:
    hangs = (plate.state["fall"] == 0).mean(0)  # share of the clip
    left = 1 - 0.55 * np.minimum(elapsed(plate)[:, None] / hangs, 1)
    plate.state["radius"] = plate.state["radius"][0] * left


def _put_out(fire: BurningCandle | BurningLogs, begin: float, end: float) -> None:
    """No flame between two shares of the clip."""
    share = elapsed(fire)
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
    flares = (elapsed(fire) * 3 + rng.uniform(0, 1)) % 1
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
