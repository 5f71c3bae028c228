"""How clips are annotated: one frozen configuration (no torch)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from prophy.data.tables import read_text
from prophy.schema import AtLeastNone, BatchSize, FrameRate, Seed, Width, check_fields, parsed

#: A model's own choices, beside its weights: read where nobody says otherwise.
CONFIG_FILE = "annotation.json"
#: Changes with the wording of a question or the layout of a prompt: maps of two versions are not to be mixed.
PROMPT_VERSION = "prophy-vlm-v1"
#: What the background map answers (paper, section 3.3). The phenomena's questions are in :mod:`prophy.phenomena`.
BACKGROUND_QUESTION = "Describe the video briefly."


@dataclass(frozen=True)
class AnnotationConfig:
    """Choices the paper leaves open; every default is ours.

    Attributes:
        layers: decoder layers whose attention is averaged. None: the upper half of those that have full attention;
            the lower ones look at positions and neighbours more than at content.
        heads: attention heads averaged, the same in each layer. None: all.
        keep_layers: also keep each layer's own map, to compare layers.
        max_answer_tokens: longest answer. A description of one phenomenon fits in 128.
        temperature: 0 is greedy; above it, tokens are sampled.
        seed: of the sampling; each question draws from its own generator, whatever it is batched with.
        fps: frames shown to the model each second of the clip: the rate these models were trained at.
        min_frames: frames shown of a short clip, if it has as many.
        max_frames: frames shown of a long one, evenly spread.
        min_frame_tokens: video tokens of a frame, at least: smaller frames are enlarged.
        max_frame_tokens: video tokens of a frame, at most: larger frames are shrunk. The families' own bounds.
        relative: divide each map by its sum before subtracting, so that the difference says where an answer looks, not
            how much it looks at the video at all.
        peak: divide each phenomenon's difference by its largest value, so that targets reach 1 like those of masks.
        questions_per_batch: questions answered at once. Each holds its own copy of the video's keys and values.

    Raises:
        ValueError: a value out of range, with what to use.
    """

    layers: tuple[AtLeastNone, ...] | None = None
    heads: tuple[AtLeastNone, ...] | None = None
    keep_layers: bool = False
    max_answer_tokens: Width = 128
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.0
    seed: Seed = 0
    fps: FrameRate = 2.0
    min_frames: Width = 4
    max_frames: Width = 64
    min_frame_tokens: Width = 128
    max_frame_tokens: Width = 768
    relative: bool = True
    peak: bool = True
    questions_per_batch: BatchSize = 4

    def __post_init__(self) -> None:
        check_fields(self)
        if self.min_frames > self.max_frames:
            raise ValueError(f"min_frames={self.min_frames} exceeds max_frames={self.max_frames}: lower min_frames")
        if self.min_frame_tokens > self.max_frame_tokens:
            raise ValueError(
                f"min_frame_tokens={self.min_frame_tokens} exceeds max_frame_tokens={self.max_frame_tokens}: lower it"
            )
        for name in ("layers", "heads"):
            chosen = getattr(self, name)
            if chosen is not None and (not chosen or len(set(chosen)) != len(chosen)):
                raise ValueError(f"{name}={chosen} must name each of one or more {name} once: use None for the default")


def read_config(path: str | Path) -> AnnotationConfig:
    """A configuration from a JSON file of fields, or from the folder of a model that carries one; else the default.

    Args:
        path: a ``.json`` file, or what a model is loaded from.

    Raises:
        ValueError: no JSON object, a field that does not exist, or a value out of range.
        OSError: the file cannot be read.
    """
    path = Path(path)
    if path.suffix != ".json":
        path = path / CONFIG_FILE
        if not path.is_file():
            return AnnotationConfig()
    text = read_text(path)
    try:
        fields = parsed(text)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    known = AnnotationConfig.__dataclass_fields__
    if not isinstance(fields, dict) or (set(fields) - set(known)):
        wrong = ", ".join(sorted(set(fields) - set(known))) if isinstance(fields, dict) else "no object"
        raise ValueError(f"{path} holds {wrong}: use some of {', '.join(known)}")
    try:
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
        return AnnotationConfig(**values)
    except TypeError as error:
        raise ValueError(f"{path} holds a value of the wrong type: {error}") from None
