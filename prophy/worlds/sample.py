"""From a seed to a clip: choose events, simulate, paint, describe. The same seed always gives the same clip."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from prophy.phenomena import IDS, by_id
from prophy.worlds import dynamics, optics, thermodynamics  # noqa: F401 (registers the events)
from prophy.worlds.clocks import FINER, fine_times, unlawful_clock
from prophy.worlds.event import EVENTS, Event, kind_of
from prophy.worlds.language import FIRST, Grammar, Telling
from prophy.worlds.painter import Painter, background
from prophy.worlds.placed import Placed
from prophy.worlds.stage import BACKGROUNDS, COLOURS, Knobs, Stage
from prophy.worlds.twins import Broken, twin_of

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


@dataclass(frozen=True)
class Scenario:
    """What a clip will show, before anything is simulated."""

    events: tuple[Placed, ...]
    setting: str

    @property
    def labels(self) -> np.ndarray:
        """Multi-hot vector of the phenomena shown, float32 ``(17,)``."""
        labels = np.zeros(len(IDS), np.float32)
        for event in self.events:
            labels[by_id(event.phenomenon).index] = 1
        return labels

    def describe(self, rng: np.random.Generator, held_out: bool = False, grammar: Grammar = FIRST) -> str:
        """A caption in random words; ``held_out`` uses only wordings that training never sees."""
        return grammar.tell(self.events, self.setting, rng, held_out).text


@dataclass(frozen=True)
class WorldClip:
    """A synthetic clip and everything that is known about it.

    Attributes:
        frames: uint8 RGB ``(F, H, W, 3)``.
        masks: for each phenomenon shown, bool ``(F, H, W)``: where it acts, from the simulator's geometry.
        caption: what a person would type.
        scenario: what happens, where.
        states: for each event, the simulator's state, see :class:`prophy.worlds.event.Event`.
        seed: reproduces the clip together with the split.
        stage: its size, length and rate.
        broken: the law that it breaks; None for a lawful clip, and for one whose events run by clocks of their own.
    """

    frames: np.ndarray
    masks: dict[str, np.ndarray]
    caption: str
    scenario: Scenario
    states: tuple[dict[str, np.ndarray], ...]
    seed: int
    stage: Stage = Stage()
    broken: Broken | None = None


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


def _streams(seed: int, split: str) -> list[np.random.Generator]:
    """Independent randomness for the scenario, the words, the physics and the clocks of a clip.

    Raises:
        ValueError: unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: use one of {', '.join(SPLITS)}")
    return [np.random.default_rng([seed, list(SPLITS).index(split), part]) for part in range(4)]


def sample_telling(
    seed: int, split: str = "train", phenomena: tuple[str, ...] = IDS, grammar: Grammar = FIRST, twins: float = 0.0
) -> tuple[Scenario, Telling]:
    """The scenario of clip ``seed`` and how ``grammar`` tells it, without simulating it: thousands a second.

    Args:
        seed: non-negative integer.
        split: one of :data:`SPLITS`.
        phenomena: ids to draw from.
        grammar: puts the scenario into words.
        twins: share of the clips of two events that show one scene twice, half of them in one colour; none of the
            split ``combinations`` do. 0 gives the clips of the first generation.

    Raises:
        ValueError: unknown split, or phenomena without a world.
    """
    if missing := [p for p in phenomena if p not in EVENTS]:
        raise ValueError(f"no world shows {', '.join(missing)}: use some of {', '.join(EVENTS)}")
    rng, words, *_ = _streams(seed, split)
    setting = str(rng.choice(list(BACKGROUNDS)))
    events = []
    for phenomenon, place in _choose(rng, tuple(phenomena), split):
        kind = EVENTS[phenomenon][rng.integers(len(EVENTS[phenomenon]))]
        colours = tuple(str(c) for c in rng.choice(list(COLOURS), kind.colour_count, replace=False))
        events.append(Placed(phenomenon, kind.variant, colours, place))
    if twins and len(events) == 2 and split != "combinations" and rng.random() < twins:
        events[1] = replace(events[0], place=events[1].place)
        if rng.random() < 0.5:
            others = rng.choice(list(COLOURS), len(events[0].colours), replace=False)
            events[1] = replace(events[1], colours=tuple(str(c) for c in others))
    scenario = Scenario(tuple(events), setting)
    return scenario, grammar.tell(scenario.events, setting, words, held_out=split == "wordings")


def sample_scenario(
    seed: int, split: str = "train", phenomena: tuple[str, ...] = IDS, grammar: Grammar = FIRST, twins: float = 0.0
) -> tuple[Scenario, str]:
    """The scenario and the caption of clip ``seed``; arguments and errors as for :func:`sample_telling`."""
    scenario, telling = sample_telling(seed, split, phenomena, grammar, twins)
    return scenario, telling.text


def render(
    scenario: Scenario,
    rng: np.random.Generator,
    held_out_parameters: bool = False,
    stage: Stage = Stage(),
    clocks: np.random.Generator | None = None,
    broken: Broken | None = None,
    changed: Callable[[int, Event], None] | None = None,
) -> tuple[np.ndarray, dict[str, np.ndarray], tuple[dict[str, np.ndarray], ...]]:
    """Simulate and paint a scenario.

    Args:
        scenario: what happens, where.
        rng: of the physics; the same on every stage, with every clock and every broken law, gives the same parameters.
        held_out_parameters: draw them from above the range of training.
        stage: size, length and rate.
        clocks: each event runs by a clock of its own that obeys no law, see :mod:`prophy.worlds.clocks`. Default: by
            the clip's.
        broken: the law to break, see :mod:`prophy.worlds.twins`; the other event is pixel by pixel the lawful one.
        changed: is given each event with its number, from 0, once it is simulated; what it changes of it is drawn.

    Returns:
        frames uint8 ``(F, H, W, 3)``, masks by phenomenon bool ``(F, H, W)``, the state of each event, as drawn.

    Raises:
        ValueError: a law that no event of the scenario has, or a broken law beside clocks.
    """
    if broken is not None and clocks is not None:
        raise ValueError(f"clocks keep no law: break {broken.law!r} in a lawful clip")
    twin = None if broken is None else twin_of(scenario.events, broken)
    knobs = Knobs(rng, held_out_parameters)
    breaches = rng.spawn(1)[0]  # draws that leave those of the physics as they are
    events: list[Event] = []
    moments: list[np.ndarray] = []  # of each event, what is drawn in each frame
    for i, placed in enumerate(scenario.events):
        breaks = broken is not None and i == broken.event
        times = stage.times if clocks is None and not breaks else fine_times(stage)
        kind = kind_of(placed.phenomenon, placed.variant)
        events.append(kind(knobs, stage.region(placed.place), placed.colours, stage, times))
        if changed is not None:
            changed(i, events[-1])
        rows = np.arange(0, len(times), 1 if len(times) == stage.frames else FINER)
        if clocks is not None:
            rows = unlawful_clock(stage, clocks)
        elif twin is not None and breaks and (bent := twin.breach(events[-1], breaches)) is not None:
            rows = bent
        moments.append(rows)
    shape = (stage.frames, stage.height, stage.width)
    frames = np.empty((*shape, 3), np.uint8)
    masks = {event.phenomenon: np.zeros(shape, bool) for event in events}
    backdrop = background(scenario.setting, stage)
    for f in range(stage.frames):
        painter = Painter(backdrop.copy(), stage)
        for event, shown in zip(events, moments, strict=True):
            painter.enter(event.phenomenon, event.region)
            event.draw(painter, int(shown[f]))
        frames[f], drawn = painter.finish()
        for phenomenon, mask in drawn.items():
            masks[phenomenon][f] = mask
    states = (
        event.state if event.times is stage.times else event.shown_at(shown)
        for event, shown in zip(events, moments, strict=True)
    )
    return frames, masks, tuple(states)


def sample_clip(
    seed: int,
    split: str = "train",
    phenomena: tuple[str, ...] = IDS,
    stage: Stage = Stage(),
    lawful: bool = True,
    grammar: Grammar = FIRST,
    twins: float = 0.0,
    broken: Broken | None = None,
    changed: Callable[[int, Event], None] | None = None,
) -> WorldClip:
    """Make one clip.

    Args:
        seed: non-negative integer.
        split: one of :data:`SPLITS`.
        phenomena: ids to draw from; half the clips show two of them, left and right.
        stage: size, length and rate; scenario and caption of a seed are the same on every one.
        lawful: or each event runs by a clock that obeys no law; with the same scenario, caption and parameters.
        grammar: puts the clip into words.
        twins: share of the clips of two events that show one scene twice, see :func:`sample_telling`.
        broken: make the clip's impossible twin, which breaks this one law, see :mod:`prophy.worlds.twins`.
        changed: as for :func:`render`.

    Raises:
        ValueError: unknown split, phenomena without a world, a law that the clip's scene does not have, or one to break
            where no law is kept.
    """
    scenario, text = sample_scenario(seed, split, phenomena, grammar, twins)
    _, _, physics, clocks = _streams(seed, split)
    held_out = split == "parameters"
    frames, masks, states = render(scenario, physics, held_out, stage, None if lawful else clocks, broken, changed)
    return WorldClip(frames, masks, text, scenario, states, seed, stage, broken)
