"""Size limits and default generation settings of a model (no torch).

The rules follow from the configurations alone, so they are known before any weights are: to the page, to the plan, to
the pipelines and to generation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from prophy.grid import TokenGrid, nearest_length
from prophy.schema import DenoisingSteps, FrameRate, Width, check_fields

LONGEST_PROMPT_TOKENS = 512  #: where neither model nor tokenizer says; a tokenizer without a limit says 10^30


@dataclass(frozen=True)
class ClipSize:
    """The clip to make.

    Attributes:
        width: pixels.
        height: pixels.
        frames: video frames.
        guided: whether the unconditional pass is made too.
    """

    width: Width
    height: Width
    frames: Width
    guided: bool = True

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def parse(cls, text: str) -> ClipSize:
        """Read a size such as ``832x480x81``.

        Raises:
            ValueError: it is not three whole numbers above 0.
        """
        parts = text.lower().split("x")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
            raise ValueError(f"--size {text} is not WxHxF: give three numbers, as in 832x480x81")
        width, height, frames = map(int, parts)
        return cls(width, height, frames)


@dataclass(frozen=True)
class GenerationDefaults:
    """Settings of a clip where none are given. Those of the class are the embedded model's.

    Attributes:
        width: pixels.
        height: pixels.
        frames: video frames.
        fps: frames per second.
        steps: denoising steps.
        guidance: classifier-free guidance scale.
        negative_prompt: what guidance leads away from.
        guidance_2: scale at low noise, of a model with a second transformer; None: as ``guidance``.
        flow_shift: how far a flow's steps lie towards noise; None: as the model's scheduler has it.
    """

    width: Width = 64
    height: Width = 64
    frames: Width = 17
    fps: FrameRate = 8.0
    steps: DenoisingSteps = 20
    guidance: Annotated[float, Field(ge=0, le=30)] = 4.0
    negative_prompt: str = ""
    guidance_2: Annotated[float, Field(ge=0, le=30)] | None = None
    flow_shift: Annotated[float, Field(gt=0, le=100)] | None = None

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def clip(self) -> ClipSize:
        return ClipSize(self.width, self.height, self.frames, guided=self.guidance > 1)


@dataclass(frozen=True)
class FewSteps:
    """What a distilled model or LoRA asks for, all of it together: with guidance 1 no unconditional pass is made.

    The values are those of lightx2v's four-step distillations of Wan (``wan_t2v_distill_4step_cfg.json``): shift 5,
    noise levels 1000, 750, 500 and 250 before the shift, no guidance.

    Attributes:
        steps: denoising steps.
        guidance: none.
        negative_prompt: none, as nothing is guided away from it.
        guidance_2: none of its own.
        flow_shift: of the steps.
        sampler: see :class:`prophy.generation.settings.GenerationSettings`.
    """

    steps: DenoisingSteps = 4
    guidance: float = 1.0
    negative_prompt: str = ""
    guidance_2: None = None
    flow_shift: float = 5.0
    sampler: str = "euler"


@dataclass(frozen=True)
class ClipRules:
    """What a model asks of a clip, and how its latents lie.

    Attributes:
        channels: of a latent.
        patch: latent rows and columns on a side of one token.
        cell: pixels on a side of one token: the autoencoder's factor times the patch.
        size_step: height and width must be multiples of this many pixels.
        frame_step: the number of video frames must be one more than a multiple of this.
        text_tokens: length the prompt is padded to; the tokenizer may know a smaller one.
        frames_first: latents lie as (B, T, C, H, W), not (B, C, T, H, W).
        frame_patch: latent frames of one token. Where they do not divide, the pipeline denoises more of them, in front
            of the clip's own, and drops those before it decodes.
    """

    channels: int
    patch: int
    cell: int
    size_step: int
    frame_step: int
    text_tokens: int
    frames_first: bool
    frame_patch: int = 1

    def check(self, frames: int, height: int, width: int) -> None:
        """Refuse a clip that the model cannot make.

        Raises:
            ValueError: a size or a length that does not divide; the message names the nearest that does.
        """
        step = self.size_step
        nearest = [step * max(1, round(size / step)) for size in (width, height)]
        if nearest != [width, height]:
            raise ValueError(
                f"{width}×{height} pixels do not divide into this model's steps of {step}: "
                f"use {nearest[0]}×{nearest[1]}"
            )
        if (frames - 1) % self.frame_step:
            raise ValueError(
                f"frames={frames} is not 1 + {self.frame_step}k, all this model can make: "
                f"use {nearest_length(frames, self.frame_step)}"
            )

    def grid(self, frames: int, height: int, width: int) -> TokenGrid:
        """The token grid of a clip.

        Raises:
            ValueError: see :meth:`check`.
        """
        self.check(frames, height, width)
        return TokenGrid.from_video(frames, height, width, self.cell)

    def latent_shape(self, clip: ClipSize) -> tuple[int, int, int, int]:
        """(C, T, h, w) of a clip's latent, as the autoencoder makes and takes it.

        Raises:
            ValueError: see :meth:`check`.
        """
        grid = self.grid(clip.frames, clip.height, clip.width)
        return self.channels, grid.frames, grid.height * self.patch, grid.width * self.patch

    def denoised_shape(self, clip: ClipSize) -> tuple[int, int, int, int]:
        """(C, T, h, w) of the latent that the transformer is given: its frames fill whole tokens.

        Raises:
            ValueError: see :meth:`check`.
        """
        channels, frames, height, width = self.latent_shape(clip)
        return channels, self.frame_patch * math.ceil(frames / self.frame_patch), height, width
