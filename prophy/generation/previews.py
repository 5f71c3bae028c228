"""Live previews: the clean latent that a scheduler predicts at each step, in rough colours, without decoding.

Shapes: B batch, C latent channels, T latent frames, h and w latent rows and columns, F video frames of H×W pixels.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import cv2
import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.utils.torch_utils import get_module_execution_device

from prophy.backbones.autoencoder import normalise, to_pixels
from prophy.grid import TEMPORAL


@contextmanager
def predicted_clean(scheduler: Any) -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """Inside: what gives, for the latents after a step, the clean latents that the scheduler predicted at that step.

    Multistep schedulers keep their prediction; others return it beside the next latents, and the stock pipelines drop
    it, so what ``step`` is given and returns is watched; Euler's for flows follows from the velocity. Of any other
    scheduler the latents come back as they are, with what noise is left.
    """
    step, put_there = scheduler.step, vars(scheduler).get("step")  # by somebody who wants other steps
    predictions: list[torch.Tensor | None] = []
    signature = inspect.signature(step)

    @wraps(step)  # the pipelines look at its parameters
    def watched(*args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        given = signature.bind(*args, **kwargs).arguments
        predictions[:] = [_prediction(scheduler, given["model_output"], given["sample"], result)]
        return result

    scheduler.step = watched
    try:
        yield lambda latents: latents if predictions[0] is None else predictions[0]
    finally:
        if put_there is None:
            del scheduler.step
        else:
            scheduler.step = put_there


def _prediction(
    scheduler: Any, model_output: torch.Tensor, sample: torch.Tensor, result: object
) -> torch.Tensor | None:
    """The clean latents predicted in a step that has just been made."""
    kept = getattr(scheduler, "model_outputs", None)
    if kept and kept[-1] is not None:
        return kept[-1]
    if isinstance(result, tuple) and len(result) > 1:
        return result[1]
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        return sample - scheduler.sigmas[scheduler.step_index - 1] * model_output
    return None


class LatentColours:
    """Rough colours of normalised latents: an affine map from channels to RGB, fitted to one autoencoder.

    The autoencoder sees a few clips of smooth random colours; least squares does the rest, once for the first latent
    frame (one picture) and once for the others (four pictures each). Decoding instead would cost more than a step.
    """

    def __init__(self, vae: torch.nn.Module) -> None:
        rng = np.random.default_rng(0)
        side = 8 * getattr(vae.config, "scale_factor_spatial", 8)
        coarse = rng.integers(0, 256, (4, 5, 5, 3)).astype(np.float32)
        images = np.stack([cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC) for image in coarse]).clip(
            0, 255
        )
        pixels_BCFHW = to_pixels(images[:, None]).repeat(1, 1, 1 + TEMPORAL, 1, 1)
        device = get_module_execution_device(vae)  # where its weights come to, when they are offloaded
        latents = normalise(vae.encode(pixels_BCFHW.to(device, vae.dtype)).latent_dist.mode().cpu(), vae)
        targets = np.stack(
            [cv2.resize(image, latents.shape[-2:][::-1], interpolation=cv2.INTER_AREA) for image in images]
        )
        self._maps = [self._fit(latents[:, :, t], targets) for t in (0, 1)]

    @staticmethod
    def _fit(latents_BChw: torch.Tensor, rgb_Bhw3: np.ndarray) -> np.ndarray:
        inputs = latents_BChw.permute(0, 2, 3, 1).flatten(0, 2).numpy()
        inputs = np.concatenate([inputs, np.ones((len(inputs), 1), np.float32)], axis=1)
        return np.linalg.lstsq(inputs, rgb_Bhw3.reshape(-1, 3), rcond=None)[0]

    def __call__(self, latents_CThw: torch.Tensor) -> np.ndarray:
        """uint8 (T, h, w, 3)."""
        channels_last = latents_CThw.float().cpu().permute(1, 2, 3, 0).numpy()
        first, rest = self._maps
        pictures = [frame @ (first if t == 0 else rest)[:-1] for t, frame in enumerate(channels_last)]
        offsets = np.stack([(first if t == 0 else rest)[-1] for t in range(len(pictures))])[:, None, None]
        return np.round(np.clip(np.stack(pictures) + offsets, 0, 255)).astype(np.uint8)


_colours_by_vae: weakref.WeakKeyDictionary[torch.nn.Module, LatentColours] = weakref.WeakKeyDictionary()


def latent_colours(vae: torch.nn.Module) -> LatentColours:
    """The colours of an autoencoder's latents, fitted once."""
    if vae not in _colours_by_vae:
        _colours_by_vae[vae] = LatentColours(vae)
    return _colours_by_vae[vae]
