"""The pipelines: stock diffusers pipelines with the branch attached, and the one door to load them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

import prophy.backbones  # noqa: F401  registers the families
from prophy.assets import default_model
from prophy.branch import ProPhyBranch, attach

BRANCH_FOLDER = "branch"


class ProPhyWanPipeline(WanPipeline):
    """A stock ``WanPipeline`` whose transformer has a physical branch beside it; only ``__init__`` is new.

    Attributes:
        attachment: the :class:`prophy.branch.Attachment`: observe, steer, switch off. ``None`` without a branch.

    Raises:
        ValueError: the branch belongs to another transformer.
    """

    _optional_components: ClassVar[list[str]] = [*WanPipeline._optional_components, "branch"]

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: UMT5EncoderModel,
        vae: AutoencoderKLWan,
        scheduler: UniPCMultistepScheduler,
        transformer: WanTransformer3DModel | None = None,
        transformer_2: WanTransformer3DModel | None = None,
        branch: ProPhyBranch | None = None,
        boundary_ratio: float | None = None,
        expand_timesteps: bool = False,
    ) -> None:
        super().__init__(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            vae=vae,
            scheduler=scheduler,
            transformer=transformer,
            transformer_2=transformer_2,
            boundary_ratio=boundary_ratio,
            expand_timesteps=expand_timesteps,
        )
        self.register_modules(branch=branch)
        self.attachment = None if branch is None else attach(transformer, branch)


def load(
    model: str | Path | None = None, branch: str | Path | None = None, dtype: torch.dtype = torch.float32
) -> ProPhyWanPipeline:
    """Open a base model and, beside it, a branch.

    Args:
        model: a diffusers folder or hub id; default: the embedded model.
        branch: the branch's folder or hub id; default: the ``branch`` folder inside ``model``, if there is one.
        dtype: of the weights.

    Raises:
        FileNotFoundError: a folder that does not exist.
        ValueError: weights that cannot be read, or a branch of another base. One line each.
    """
    base = default_model() if model is None else model
    _check_folder(base, "model_index.json", "model")
    if branch is None and (Path(base) / BRANCH_FOLDER).is_dir():
        branch = Path(base) / BRANCH_FOLDER
    if branch is not None:
        _check_folder(branch, "config.json", "branch")
    try:
        stock = WanPipeline.from_pretrained(base, dtype=dtype)
        physics = None if branch is None else ProPhyBranch.from_pretrained(branch, dtype=dtype)
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise ValueError(f"cannot open {base}: {reason[0] if reason else type(error).__name__}") from error
    components = {**stock.components, "branch": physics}
    pipeline = ProPhyWanPipeline(
        **components, boundary_ratio=stock.config.boundary_ratio, expand_timesteps=stock.config.expand_timesteps
    )
    pipeline.register_to_config(_name_or_path=str(base))
    return pipeline


def _check_folder(path: str | Path, marker: str, kind: str) -> None:
    """Refuse a path that looks local and does not hold the format; a hub id is left to diffusers."""
    folder = Path(path)
    local = isinstance(path, Path) or str(path).startswith((".", "/", "~")) or folder.exists()
    if local and not (folder / marker).is_file():
        raise FileNotFoundError(f"{folder} holds no {kind} ({marker} is missing): give a {kind} folder or a hub id")
