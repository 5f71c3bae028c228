"""The paper's figures 6, 7 and 8 as numbers; the pictures are PNG files beside the result's own."""

from __future__ import annotations

from dataclasses import dataclass

from prophy.evaluation.results import Interval, Measured, Result
from prophy.evaluation.results.interval import Count, PhenomenonId

INVERTED, RANDOM, SHUFFLED = "inverted", "random, equal norm", "experts shuffled"  #: changes of the router


@dataclass(frozen=True)
class CorrelationResult(Result, kind="correlation", command="prophy evaluate figures --figure 6"):
    """Figure 6.

    Attributes:
        phenomena: ids, in the order of rows and columns.
        logits: Pearson correlation of two phenomena' mean semantic logits, with an interval over prompts.
        labels: the same of their mean label vectors.
        agreement: Pearson correlation of the two tables, off the diagonal: near 1, the router only repeats the labels;
            not a number where one of them is the same everywhere.
        prompts: how many.
    """

    phenomena: tuple[PhenomenonId, ...]
    logits: tuple[tuple[Interval, ...], ...]
    labels: tuple[tuple[Measured, ...], ...]
    agreement: Measured
    prompts: Count
    model_sha256: str

    def __post_init__(self) -> None:
        size = len(self.phenomena)
        for name, table in (("logits", self.logits), ("labels", self.labels)):
            if [len(row) for row in table] != [size] * size:
                raise ValueError(f"{name} are no table of {size} by {size} phenomena")

    @property
    def weights(self) -> dict[str, str]:
        return {"model": self.model_sha256}


@dataclass(frozen=True)
class ExpertMapsResult(Result, kind="expert-maps", command="prophy evaluate figures --figure 7"):
    """Figure 7: the pictures, one a prompt, and each expert's share of the tokens of every latent frame, ``[T][E]``."""

    prompts: tuple[str, ...]
    shares: tuple[tuple[tuple[float, ...], ...], ...]
    pictures: tuple[str, ...]
    model_sha256: str

    def __post_init__(self) -> None:
        if len(self.shares) != len(self.prompts):
            raise ValueError(f"shares of {len(self.shares)} prompts, not of {len(self.prompts)}")
        for prompt, frames in zip(self.prompts, self.shares, strict=True):
            if len({len(frame) for frame in frames}) != 1:
                raise ValueError(f"the latent frames of {prompt!r} are none, or of different numbers of experts")

    @property
    def weights(self) -> dict[str, str]:
        return {"model": self.model_sha256}


@dataclass(frozen=True)
class InversionResult(Result, kind="inversion", command="prophy evaluate figures --figure 8"):
    """Figure 8.

    Attributes:
        pixels: by change, mean absolute difference to the unchanged clip, 0 to 1; the inversion first.
        routing: by change, mean Jensen-Shannon distance of the routing to the unchanged one, bits.
        inverted_minus: paired differences of ``pixels`` to each control.
    """

    pixels: dict[str, Interval]
    routing: dict[str, Interval]
    inverted_minus: dict[str, Interval]
    prompts: tuple[str, ...]
    pictures: tuple[str, ...]
    model_sha256: str

    def __post_init__(self) -> None:
        if INVERTED not in self.pixels or self.pixels.keys() != self.routing.keys():
            raise ValueError(f"pixels and routing are not of the same changes, {INVERTED!r} among them")

    @property
    def weights(self) -> dict[str, str]:
        return {"model": self.model_sha256}
