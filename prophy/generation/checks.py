"""What a pipeline can make: settings are checked against it before any time is spent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prophy.backbones.attention import check_records
from prophy.backbones.pipeline import rules_of, transformers_of
from prophy.files import some_of
from prophy.generation.identity import branch_is_on
from prophy.generation.sampling import scheduler_for
from prophy.generation.settings import GenerationError, GenerationSettings
from prophy.generation.words import check_prompt, words_in
from prophy.grid import TokenGrid
from prophy.routing.attention import kept_steps
from prophy.routing.steering import SteeringError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def check(pipeline: DiffusionPipeline, settings: GenerationSettings, *, attention: bool = False) -> None:
    """Refuse what the pipeline cannot make, or, with ``attention``, cannot record.

    Raises:
        GenerationError: a size, a prompt, a steering or a schedule that does not fit it; one line that names the cure.
    """
    grid = token_grid(pipeline, settings)
    check_prompt(pipeline.tokenizer, settings.prompt, rules_of(pipeline).text_tokens)
    if settings.guidance > 1 and settings.negative_prompt.strip():
        try:
            check_prompt(pipeline.tokenizer, settings.negative_prompt, rules_of(pipeline).text_tokens)
        except GenerationError as error:
            raise GenerationError(f"of the negative prompt: {error}") from None
    if settings.guidance_2 is not None and len(transformers_of(pipeline)) == 1:
        raise GenerationError("this model has one transformer for all noise: leave the second guidance out")
    scheduler_for(pipeline.scheduler, settings)
    is_on = branch_is_on(pipeline)
    if attention:
        _check_attention(pipeline, settings, grid)
    if not is_on and not settings.schedule.is_every_pass:
        raise GenerationError("there is no branch to schedule: open a model that has one and leave it on")
    if settings.steering.is_neutral:
        return
    if getattr(pipeline, "attachment", None) is None:
        raise GenerationError("this model has no branch, so no experts to steer: open one that has, or do not steer")
    if not is_on:
        raise GenerationError("the branch is switched off, so its experts cannot be steered: switch it on")
    try:
        settings.steering.check(*num_experts(pipeline), grid)
    except SteeringError as error:
        raise GenerationError(str(error)) from None


def _check_attention(pipeline: DiffusionPipeline, settings: GenerationSettings, grid: TokenGrid) -> None:
    if not branch_is_on(pipeline):
        raise GenerationError("attention is recorded beside the routing, and no branch is on: record none")
    try:
        for transformer in transformers_of(pipeline):
            check_records(transformer)
        texts = words_in(pipeline.tokenizer, settings.prompt).texts
        kept_steps(settings.steps, grid.num_tokens, len(texts))
    except ValueError as error:
        raise GenerationError(str(error)) from None
    if not texts:
        raise GenerationError("the prompt has no word whose attention could be recorded: record none")


def check_all(pipeline: DiffusionPipeline, settings: Sequence[GenerationSettings], *, attention: bool = False) -> None:
    """:func:`check` of several clips, before time is spent on the first.

    Raises:
        GenerationError: some of them cannot be made; the message begins with the first one's prompt, and counts and
            names the others.
    """
    refused: dict[str, str] = {}
    for one in settings:
        try:
            check(pipeline, one, attention=attention)
        except GenerationError as error:
            refused.setdefault(f"{one.prompt[:60]!r}", str(error))
    if refused:
        first, *others = refused
        more = f"; and {len(others)} more of {len(settings)}: {some_of(others)}" if others else ""
        raise GenerationError(f"{first}: {refused[first]}{more}")


def token_grid(pipeline: DiffusionPipeline, settings: GenerationSettings) -> TokenGrid:
    """The token grid of a clip of these settings.

    Raises:
        GenerationError: a size or a length that the pipeline cannot make; the message names the nearest that it can.
    """
    try:
        return rules_of(pipeline).grid(settings.frames, settings.height, settings.width)
    except ValueError as error:
        raise GenerationError(str(error)) from None


def num_experts(pipeline: DiffusionPipeline) -> tuple[int, int]:
    """Semantic experts, refinement experts."""
    return pipeline.branch.config.num_semantic_experts, pipeline.branch.config.num_refinement_experts
