"""What differs between the vision-language families: prompt layout, pixel statistics, positions (no torch)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

VIDEO_TOKEN = "<|video_pad|>"  #: stands in a prompt for every token of the video
TURN_END = "<|im_end|>"


@dataclass(frozen=True)
class Family:
    """One family. Patch, merge and temporal sizes are not here: the model's own configuration has them.

    Attributes:
        name: for people.
        model_types: ``config.model_type`` of its models.
        image_mean: of the RGB values in 0..1 that the vision tower was trained on.
        image_std: the same.
        system: what precedes the user's turn.
        thinking: what opens the assistant's turn, so that the answer comes at once.
        timestamped: each temporal patch is a vision span of its own, behind its time: the video tokens do not lie in
            one piece.
        timed_positions: rotary positions grow with the seconds between temporal patches.
    """

    name: str
    model_types: tuple[str, ...]
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    system: str = ""
    thinking: str = ""
    timestamped: bool = True
    timed_positions: bool = False

    def prefix(self, seconds: Sequence[float]) -> str:
        """A prompt up to the end of the video, one :data:`VIDEO_TOKEN` for each span of video tokens.

        Args:
            seconds: the middle of each temporal patch, from the start of the clip.
        """
        span = f"<|vision_start|>{VIDEO_TOKEN}<|vision_end|>"
        video = "".join(f"<{second:.1f} seconds>{span}" for second in seconds) if self.timestamped else span
        return f"{self.system}<|im_start|>user\n{video}"

    def question(self, text: str) -> str:
        """A prompt from the end of the video on. Begins behind a special token, so that it is tokenised apart."""
        return f"{text}{TURN_END}\n<|im_start|>assistant\n{self.thinking}"


FAMILIES = (
    Family(
        "Qwen2.5-VL",
        ("qwen2_5_vl",),
        image_mean=(0.48145466, 0.4578275, 0.40821073),
        image_std=(0.26862954, 0.26130258, 0.27577711),
        system=f"<|im_start|>system\nYou are a helpful assistant.{TURN_END}\n",
        timestamped=False,
        timed_positions=True,
    ),
    Family("Qwen3-VL", ("qwen3_vl",), image_mean=(0.5, 0.5, 0.5), image_std=(0.5, 0.5, 0.5)),
    # It thinks before it answers unless an empty thought stands there already.
    Family(
        "Qwen3.5",
        ("qwen3_5",),
        image_mean=(0.5, 0.5, 0.5),
        image_std=(0.5, 0.5, 0.5),
        thinking="<think>\n\n</think>\n\n",
    ),
)


def family_of(model_type: str) -> Family:
    """The family of a model.

    Raises:
        ValueError: none knows it.
    """
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = ", ".join(family.name for family in FAMILIES)
    raise ValueError(f"a {model_type!r} model cannot annotate: use one of the families {known}")
