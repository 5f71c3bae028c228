"""Making a run again: what would be computed otherwise than it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from prophy.generation.identity import branch_switched, computation_of, model_hash, origin_hash
from prophy.generation.settings import GenerationSettings
from prophy.runs.computation import Computation
from prophy.runs.record import RunRecord

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_PLAIN = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Differences:
    """Between what made a run and a pipeline that shall make it again. False where there are none.

    Attributes:
        other_weights: whether the weights are others, by their digest; the model of the run where they are.
        loras: whether other LoRAs act.
        said: the differences that can change frames, in words.
        device: that another device computes, in words, by which frames differ a little; empty: it does not, or it
            is not known.
    """

    other_weights: str | None
    loras: bool
    said: tuple[str, ...]
    device: str = ""

    def __bool__(self) -> bool:
        return self.other_weights is not None or bool(self.said)

    def __str__(self) -> str:
        weights = [] if self.other_weights is None else [f"was made by other weights ({self.other_weights})"]
        now = [f"is now made {', '.join(self.said)}"] if self.said else []
        return ", and ".join([*weights, *now])


def differences_from(record: RunRecord, pipeline: DiffusionPipeline) -> Differences:
    """What differs between a run's record and a pipeline, its branch on or off as it shall be.

    A record of 0.1.0 says nothing but a digest of files, and is compared by that.
    """
    before, now = record.computation, computation_of(pipeline, GenerationSettings.from_record(record))
    digests = {digest(pipeline) for digest in (model_hash, *(() if before.is_known else (origin_hash,)))}
    with branch_switched(pipeline, on=True):  # 0.1.0 counted a branch that was switched off
        digests |= {model_hash(pipeline)} if before.is_known else {origin_hash(pipeline)}
    same = record.model_sha256 in digests
    loras = before.is_known and before.adapters != now.adapters
    return Differences(
        None if same else record.model_id, loras, tuple(now.differences(before)), now.other_device(before)
    )


def dtype_of(computation: Computation) -> torch.dtype | None:
    """The dtype that a run's weights were opened in, as far as it is known and one that any device opens."""
    name = computation.dtypes.get("transformer", "").partition(",")[0]  # behind it, what they were computed in
    return getattr(torch, name) if name in _PLAIN else None
