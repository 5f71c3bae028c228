"""The scheduler that a clip's settings ask for, in place of the model's own while the clip is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

from prophy.generation.settings import GenerationError, GenerationSettings

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# DPM-Solver++ of first order is Euler's method for a flow, and its noise levels are those of the authors' own code:
# 1 to 1 / steps before the shift. FlowMatchEulerDiscreteScheduler spaces a few steps otherwise, the last one near 0.
_SAMPLERS = {"unipc": (UniPCMultistepScheduler, 2), "euler": (DPMSolverMultistepScheduler, 1)}


def scheduler_for(scheduler: Any, settings: GenerationSettings) -> Any:
    """The model's own scheduler, or one made from it by the settings' sampler and flow shift.

    Raises:
        GenerationError: the model's scheduler is not one of flows, so it has no shift.
    """
    if settings.flow_shift is None and settings.sampler is None:
        return scheduler
    name, config = type(scheduler).__name__, scheduler.config
    if config.get("prediction_type") != "flow_prediction" and not name.startswith("FlowMatch"):
        raise GenerationError(
            f"this model's noise is no flow ({name}): leave flow shift, sampler and few steps out, they are for models "
            "such as Wan"
        )
    if settings.sampler is None:
        key = "flow_shift" if "flow_shift" in config else "shift"
        return type(scheduler).from_config(config, **{key: settings.flow_shift})
    shift = config.get("flow_shift", config.get("shift", 1.0)) if settings.flow_shift is None else settings.flow_shift
    kind, order = _SAMPLERS[settings.sampler]
    return kind(
        num_train_timesteps=config.get("num_train_timesteps", 1000),
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=shift,
        solver_order=order,
    )


@contextmanager
def sampled(pipeline: DiffusionPipeline, settings: GenerationSettings) -> Iterator[None]:
    """Inside, the pipeline has the scheduler that the settings ask for; afterwards its own again.

    Raises:
        GenerationError: see :func:`scheduler_for`.
    """
    own = pipeline.scheduler
    pipeline.scheduler = scheduler_for(own, settings)
    try:
        yield
    finally:
        pipeline.scheduler = own
