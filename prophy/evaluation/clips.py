"""Generated clips for the evaluations: kept without loss under what made them, so that no clip is made twice.

``work/evaluation/clips/`` has a folder for each model and in it a file for each clip, both named by digests.
Evaluations that ask for the same clips share them.

Shapes: n clips, F video frames of H×W pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
from diffusers import DiffusionPipeline

from prophy.arrays import read_npz
from prophy.evaluation.results import FOLDER, write_arrays
from prophy.files import sha256
from prophy.generation.generate import Generation, generate
from prophy.generation.identity import branch_is_on, computation_of, model_hash
from prophy.generation.resume import resumable
from prophy.generation.settings import GenerationSettings
from prophy.worlds import Stage

Made = TypeVar("Made")
Arrays = Mapping[str, np.ndarray]
_MAX_BYTES = 2**31  # of the arrays of one clip: the frames of the largest that can be asked for, and its maps


class Asked(Protocol):
    """A prompt and the seed of its noise."""

    @property
    def prompt(self) -> str: ...
    @property
    def seed(self) -> int: ...


def settings_of(prompts: Iterable[Asked], steps: int | None = None, stage: Stage = Stage()) -> list[GenerationSettings]:
    """The default settings for each prompt, at the size of clips of the worlds; ``steps`` is for trying out."""
    changed = {**asdict(stage), "fps": float(stage.fps)}
    if steps is not None:
        changed["steps"] = steps
    return [GenerationSettings(one.prompt, one.seed, **changed) for one in prompts]


def generated_frames(
    pipeline: DiffusionPipeline,
    work: Path,
    settings: Sequence[GenerationSettings],
    batch: int,
    *more: str,
    make: Callable[[DiffusionPipeline, Sequence[GenerationSettings]], Sequence[Generation]] = generate,
) -> np.ndarray:
    """The clips, uint8 ``(n, F, H, W, 3)``, made a batch at a time; those that the same model made before are read.

    Args:
        pipeline: that makes them, the branch on or off as it shall be.
        work: folder of results.
        settings: of each clip.
        batch: clips at a time.
        more: what ``make`` does besides what the settings say; part of the clips' names.
        make: clips of one batch.
    """
    store = ArrayFolder[Generation](work, "clips", pipeline, lambda made: {"frames": made.frames})
    names = [digest_of(one, *more) for one in settings]
    kept = resumable(pipeline, dict(zip(names, settings, strict=True)), store, batch=batch, make=make)
    return np.stack([kept[name]["frames"] for name in names])


class ArrayFolder(Generic[Made]):
    """A :class:`prophy.generation.resume.ClipStore` of arrays, one npz a clip; another model has another folder.

    Args:
        work: folder of results.
        what: the arrays are; a folder beneath it.
        pipeline: that makes the clips.
        arrays_of: what is kept of a clip.
    """

    def __init__(self, work: Path, what: str, pipeline: DiffusionPipeline, arrays_of: Callable[[Made], Arrays]) -> None:
        how = json.dumps(computation_of(pipeline).to_json(), sort_keys=True)
        made_by = sha256(f"{model_hash(pipeline)} {branch_is_on(pipeline)} {how}")
        self._folder = Path(work) / FOLDER / what / made_by[:12]
        self._arrays_of = arrays_of

    def read(self, name: str, settings: GenerationSettings) -> Arrays | None:
        """The arrays under a digest of the settings; None where there are none, or they are damaged."""
        return self.load(name)

    def load(self, name: str) -> Arrays | None:
        """The arrays under a name that says all that they follow from besides the model; None as :meth:`read`."""
        try:
            return read_npz(self._folder / f"{name}.npz", _MAX_BYTES)
        except (OSError, ValueError):
            return None

    def write(self, name: str, made: Made) -> Arrays:
        arrays = self._arrays_of(made)
        write_arrays(self._folder / f"{name}.npz", arrays)
        return arrays


def digest_of(settings: GenerationSettings, *more: str) -> str:
    """Of all that the clip follows from besides the model, and of what else is asked for."""
    about = [settings.prompt, settings.seed, settings.scalars, settings.steering.to_json(), settings.schedule.to_json()]
    return sha256(json.dumps([*about, *more]))[:16]
