"""What a model can make, and what it makes unless told otherwise: the rules of its clips (no torch).

The rules follow from the configurations alone, so they are known before any weights are: to the page, to the plan, to
the pipelines and to generation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prophy.grid import TEMPORAL, TokenGrid

LONGEST_PROMPT_TOKENS = 512  #: the stock Wan pipeline's own limit; a tokenizer without one says 10^30
WAN, COGVIDEOX = "WanTransformer3DModel", "CogVideoXTransformer3DModel"
_WAN_STEP = 16  # the stock pipeline refuses sizes that this does not divide, whatever its parts are


@dataclass(frozen=True)
class Clip:
    """The clip to make.

    Attributes:
        width: pixels.
        height: pixels.
        frames: video frames.
        guided: whether the unconditional pass is made too.
    """

    width: int
    height: int
    frames: int
    guided: bool = True

    @classmethod
    def parse(cls, text: str) -> Clip:
        """Read a size such as ``832x480x81``.

        Raises:
            ValueError: it is not three whole numbers above 0.
        """
        parts = text.lower().split("x")
        if len(parts) != 3 or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
            raise ValueError(f"--size {text} is not WxHxF: give three numbers, as in 832x480x81")
        return cls(*map(int, parts))


@dataclass(frozen=True)
class Recommended:
    """What is made unless told otherwise. The defaults are the embedded model's.

    Attributes:
        width: pixels.
        height: pixels.
        frames: video frames.
        fps: frames per second.
        steps: denoising steps.
        guidance: classifier-free guidance scale.
    """

    width: int = 64
    height: int = 64
    frames: int = 17
    fps: float = 8.0
    steps: int = 20
    guidance: float = 4.0

    @property
    def clip(self) -> Clip:
        return Clip(self.width, self.height, self.frames, guided=self.guidance > 1)


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
    """

    channels: int
    patch: int
    cell: int
    size_step: int
    frame_step: int
    text_tokens: int
    frames_first: bool

    @classmethod
    def of(
        cls,
        transformer_class: str,
        transformer: Mapping[str, Any],
        vae: Mapping[str, Any],
        tokenizer_limit: float = LONGEST_PROMPT_TOKENS,
    ) -> ClipRules:
        """The rules of a family's configurations; what they leave out is what its classes take by default.

        Args:
            transformer_class: diffusers class of the transformer.
            transformer: its configuration.
            vae: the autoencoder's configuration.
            tokenizer_limit: the most tokens that the tokenizer gives.

        Raises:
            ValueError: neither Wan nor CogVideoX.
        """
        if transformer_class == WAN:
            patch = tuple(transformer.get("patch_size", (1, 2, 2)))[1]
            cell = patch * vae.get("scale_factor_spatial", 8)
            return cls(
                channels=vae.get("z_dim", 16),
                patch=patch,
                cell=cell,
                size_step=math.lcm(cell, _WAN_STEP),
                frame_step=TEMPORAL,
                text_tokens=int(min(tokenizer_limit, LONGEST_PROMPT_TOKENS)),
                frames_first=False,
            )
        if transformer_class == COGVIDEOX:
            patch = transformer.get("patch_size", 2)
            cell = patch * 2 ** (len(vae.get("block_out_channels", (0,) * 4)) - 1)
            return cls(
                channels=vae.get("latent_channels", 16),
                patch=patch,
                cell=cell,
                size_step=cell,
                # its autoencoder makes 1 + 4k frames of an odd number of latent frames only, and 4k of an even one
                frame_step=2 * TEMPORAL,
                # its positions are laid out for one length of text, which is not the tokenizer's to choose
                text_tokens=transformer.get("max_text_seq_length", 226),
                frames_first=True,
            )
        raise ValueError(f"unknown backbone family {transformer_class!r}: use one of {WAN}, {COGVIDEOX}")

    def check(self, frames: int, height: int, width: int) -> None:
        """Refuse a clip that the model cannot make.

        Raises:
            ValueError: a size or a length that does not divide; the message names the nearest that does.
        """
        step = self.size_step
        nearest = [step * max(1, round(size / step)) for size in (height, width)]
        if nearest != [height, width]:
            raise ValueError(
                f"{height}×{width} pixels do not divide into this model's steps of {step}: "
                f"use {nearest[0]}×{nearest[1]}"
            )
        length = 1 + self.frame_step * max(0, round((frames - 1) / self.frame_step))
        if length != frames:
            raise ValueError(f"frames={frames} is not 1 + {self.frame_step}k, all this model can make: use {length}")

    def grid(self, frames: int, height: int, width: int) -> TokenGrid:
        """The token grid of a clip.

        Raises:
            ValueError: see :meth:`check`.
        """
        self.check(frames, height, width)
        return TokenGrid.from_video(frames, height, width, self.cell)

    def latent_shape(self, clip: Clip) -> tuple[int, int, int, int]:
        """(C, T, h, w) of a clip's latent.

        Raises:
            ValueError: see :meth:`check`.
        """
        grid = self.grid(clip.frames, clip.height, clip.width)
        return self.channels, grid.frames, grid.height * self.patch, grid.width * self.patch
