"""Which clips of the worlds: what a cache, a training or a judge draws from, whatever their number."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from prophy.schema import check_fields
from prophy.worlds.language import GRAMMARS, Grammar
from prophy.worlds.sample import SPLITS, Scenario, WorldClip, sample_clip, sample_scenario
from prophy.worlds.scope import SCOPE
from prophy.worlds.stage import Stage


@dataclass(frozen=True)
class WorldSet:
    """Clips ``0, 1, 2 …`` of a split, seen in one way.

    Attributes:
        phenomena: ids to draw from.
        split: one of :data:`~prophy.worlds.sample.SPLITS`.
        stage: size, length and rate.
        lawful: or each event runs by a clock that obeys no law.
        grammar: the name of one of :data:`prophy.worlds.language.GRAMMARS`.

    Raises:
        ValueError: unknown split or grammar, or a field of another type.
    """

    phenomena: tuple[str, ...] = SCOPE
    split: str = "train"
    stage: Stage = Stage()
    lawful: bool = True
    grammar: str = "first"

    def __post_init__(self) -> None:
        check_fields(self)
        for kind, value, known in (("split", self.split, SPLITS), ("grammar", self.grammar, GRAMMARS)):
            if value not in known:
                raise ValueError(f"unknown {kind} {value!r}: use one of {', '.join(known)}")

    @property
    def words(self) -> Grammar:
        """Puts scenes into words."""
        return GRAMMARS[self.grammar]

    def clip(self, seed: int) -> WorldClip:
        """Simulate and paint a clip."""
        return sample_clip(seed, self.split, self.phenomena, self.stage, self.lawful, self.words)

    def scenario(self, seed: int) -> Scenario:
        """What a clip will show; without simulating it."""
        return sample_scenario(seed, self.split, self.phenomena, self.words)[0]

    def captions(self, seed: int, count: int) -> list[str]:
        """Wordings of a clip's caption, its own first; without simulating it."""
        scenario: Scenario
        scenario, first = sample_scenario(seed, self.split, self.phenomena, self.words)
        words = np.random.default_rng([seed, 7])
        held_out = self.split == "wordings"
        return [first, *(scenario.describe(words, held_out, self.words) for _ in range(count - 1))]

    def record(self) -> dict:
        """Plain values, as JSON gives them back."""
        return {**asdict(self), "phenomena": list(self.phenomena)}

    @classmethod
    def from_record(cls, record: dict) -> WorldSet:
        """The inverse of :meth:`record`; what a record of an older release does not say is the default.

        Raises:
            ValueError, TypeError, KeyError: a record that is damaged.
        """
        told = {name: record[name] for name in ("split", "lawful", "grammar") if name in record}
        if "stage" in record:
            told["stage"] = Stage(**record["stage"])
        return cls(phenomena=tuple(record["phenomena"]), **told)
