"""From a seed to a clip: choose events, simulate, paint, describe. The same seed always gives the same clip."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from prophy.phenomena import IDS, by_id
from prophy.worlds import dynamics, optics, thermodynamics  # noqa: F401 (registers the events)
from prophy.worlds.captions import caption, clause
from prophy.worlds.event import EVENTS, Event
from prophy.worlds.stage import BACKGROUNDS, FRAMES, SIZE, Knobs, Painter, Region, background

#: split -> what it holds out. All but ``train`` also use seeds of their own.
SPLITS: dict[str, str] = {
    "train": "what models learn from",
    "test": "the distribution of training, other seeds",
    "wordings": "sentences never seen in training",
    "combinations": "pairs of phenomena never seen together in training",
    "parameters": "speeds, sizes and masses above the range of training",
}

#: Pairs of phenomena that never share a training clip: one pair in six, each phenomenon kept in many other pairs.
HELD_OUT_PAIRS: frozenset[frozenset[str]] = frozenset(
    frozenset((IDS[i], IDS[j])) for i, j in combinations(range(len(IDS)), 2) if (3 * i + 5 * j) % 6 == 1
)

WHOLE = Region(0.0, SIZE)
HALVES = {"left": Region(0.0, SIZE / 2), "right": Region(SIZE / 2, SIZE)}


@dataclass(frozen=True)
class Placed:
    """What happens where in a clip.

    Attributes:
        phenomenon: its id.
        variant: which of the phenomenon's scenes.
        colours: colour names the caption mentions, in order.
        place: ``left``, ``right`` or ``centre``.
        state: the simulator's state, see :class:`prophy.worlds.event.Event`.
    """

    phenomenon: str
    variant: str
    colours: tuple[str, ...]
    place: str
    state: dict[str, np.ndarray]


@dataclass(frozen=True)
class Clip:
    """A synthetic clip and everything that is known about it.

    Attributes:
        frames: uint8 RGB ``(F, H, W, 3)``.
        masks: for each phenomenon shown, bool ``(F, H, W)``: where it acts, from the simulator's geometry.
        caption: what a person would type.
        events: what happens, where.
        setting: name of the background.
        seed: reproduces the clip together with the split.
    """

    frames: np.ndarray
    masks: dict[str, np.ndarray]
    caption: str
    events: tuple[Placed, ...]
    setting: str
    seed: int

    @property
    def labels(self) -> np.ndarray:
        """Multi-hot vector of the phenomena shown, float32 ``(17,)``."""
        labels = np.zeros(len(IDS), np.float32)
        for event in self.events:
            labels[by_id(event.phenomenon).index] = 1
        return labels


def _choose(rng: np.random.Generator, pool: tuple[str, ...], split: str) -> list[tuple[str, str]]:
    """Phenomena and places of a clip."""
    pairs = [p for p in combinations(pool, 2) if (frozenset(p) in HELD_OUT_PAIRS) == (split == "combinations")]
    if split == "combinations" and not pairs:
        raise ValueError("no held-out pair among these phenomena: ask for more of them")
    if pairs and (split == "combinations" or rng.random() < 0.5):
        pair = rng.permutation(pairs[rng.integers(len(pairs))])
        return [(str(pair[0]), "left"), (str(pair[1]), "right")]
    place = "centre" if rng.random() < 0.7 else str(rng.choice(["left", "right"]))
    return [(str(rng.choice(pool)), place)]


def sample_clip(seed: int, split: str = "train", phenomena: tuple[str, ...] = IDS, pictures: bool = True) -> Clip:
    """Make one clip.

    Args:
        seed: non-negative integer.
        split: one of :data:`SPLITS`.
        phenomena: ids to draw from; half the clips show two of them, left and right.
        pictures: paint frames and masks; without, only the caption and the events are made (fast).

    Raises:
        ValueError: unknown split, or phenomena without a world.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
    if missing := [p for p in phenomena if p not in EVENTS]:
        raise ValueError(f"no world shows {', '.join(missing)}: use some of {', '.join(EVENTS)}")
    rng = np.random.default_rng([seed, list(SPLITS).index(split)])
    knobs = Knobs(rng, held_out=split == "parameters")
    setting = str(rng.choice(list(BACKGROUNDS)))
    events: list[tuple[Event, str, Region]] = []
    for phenomenon, place in _choose(rng, tuple(phenomena), split):
        kinds = EVENTS[phenomenon]
        region = WHOLE if place == "centre" else HALVES[place]
        events.append((kinds[rng.integers(len(kinds))](knobs, region), place, region))
    words = [
        (clause(event.phenomenon, event.variant, event.colours, rng, split == "wordings"), place)
        for event, place, _ in events
    ]
    text = caption(words, setting, rng)
    frames = np.empty((FRAMES if pictures else 0, SIZE, SIZE, 3), np.uint8)
    masks = {event.phenomenon: np.zeros((len(frames), SIZE, SIZE), bool) for event, _, _ in events}
    if pictures:
        backdrop = background(setting)
        for f in range(FRAMES):
            painter = Painter(backdrop.copy())
            for event, _, region in events:
                painter.enter(event.phenomenon, region)
                event.draw(painter, f)
            frames[f], drawn = painter.finish()
            for phenomenon, mask in drawn.items():
                masks[phenomenon][f] = mask
    placed = tuple(Placed(e.phenomenon, e.variant, e.colours, place, e.state) for e, place, _ in events)
    return Clip(frames, masks, text, placed, setting, seed)
