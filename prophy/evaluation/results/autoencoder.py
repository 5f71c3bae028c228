"""Autoencoder: what real renders keep of their laws and looks once they were encoded and decoded."""

from __future__ import annotations

from dataclasses import dataclass

from prophy.evaluation.results import Interval, Result
from prophy.evaluation.results.interval import Count
from prophy.evaluation.results.result import require_alike


@dataclass(frozen=True)
class KeptLaws:
    """One split.

    Attributes:
        real: share of laws that the renders obey.
        kept: of those, the share that is still obeyed behind the autoencoder; every law counts alike.
        lost: share of scenes that could no longer be tracked.
        psnr: peak signal-to-noise ratio, dB, a clip each.
        by_law: ``kept``, by ``scene: law``.
    """

    real: Interval
    kept: Interval
    lost: Interval
    psnr: Interval
    by_law: dict[str, Interval]


@dataclass(frozen=True)
class AutoencoderResult(Result, kind="autoencoder", command="prophy evaluate autoencoder"):
    """Every split.

    Attributes:
        splits: of the worlds.
        clips: of each split.
        autoencoder_sha256: of its weights.
        size: of the clips, width by height by frames.
        fps: frames a second.
        pictures: two scenes of each phenomenon, the render above and what is left of it below.
    """

    splits: dict[str, KeptLaws]
    clips: Count
    autoencoder_sha256: str
    size: str
    fps: Count
    pictures: tuple[str, ...]

    def __post_init__(self) -> None:
        require_alike("splits", [self.splits])

    @property
    def weights(self) -> dict[str, str]:
        return {"autoencoder": self.autoencoder_sha256}
