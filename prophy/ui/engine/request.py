"""What a visitor asks of the engine, and what was stopped of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prophy.routing.steering import Steering

if TYPE_CHECKING:
    from prophy.generation.generate import StepPreview


@dataclass(frozen=True)
class Request:
    """What a visitor asked for, unchecked.

    Attributes:
        prompt: as typed.
        seed: of the noise.
        steps: denoising steps; None for as many as the model is recommended with.
        guidance: classifier-free guidance scale; None likewise.
        use_branch: False leaves the backbone alone: a clip without routing.
        steering: what to do to the experts.
        model: by its card's name; empty for the first.
        profile: memory profile; empty for the one that the app was started with.
        negative_prompt: what guidance leads away from; None for the model's own, as the next two.
        guidance_2: guidance at low noise, of a model with two transformers.
        flow_shift: of a flow.
        sampler: of a flow; None for the model's scheduler.
        few_steps: so many, with all that distilled models ask for, before what is set above; None for no preset.
        attention: record what the backbone attends to; the clip is the same.
        width, height, frames: of the clip; None for those that the app was started for.
    """

    prompt: str
    seed: int = 0
    steps: int | None = None
    guidance: float | None = None
    use_branch: bool = True
    steering: Steering = field(default_factory=Steering)
    model: str = ""
    profile: str = ""
    negative_prompt: str | None = None
    guidance_2: float | None = None
    flow_shift: float | None = None
    sampler: str | None = None
    few_steps: int | None = None
    attention: bool = False
    width: int | None = None
    height: int | None = None
    frames: int | None = None

    @property
    def chosen(self) -> dict[str, Any]:
        """What replaces the model's own settings, as ``GenerationSettings.changed`` takes it."""
        return {name: value for name in _CHOSEN if (value := getattr(self, name)) is not None}


_SIZE = ("width", "height", "frames")
_CHOSEN = ("few_steps", "steps", "guidance", "negative_prompt", "guidance_2", "flow_shift", "sampler", *_SIZE)


@dataclass(frozen=True)
class Stopped:
    """A generation that was stopped.

    Attributes:
        prompt: what it was for.
        preview: after its last denoising step; None if it had done none.
    """

    prompt: str
    preview: StepPreview | None
