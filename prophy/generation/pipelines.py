"""The pipelines: stock diffusers pipelines with the branch attached, and the one door to load them."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLWan,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DiffusionPipeline,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedTokenizerBase, T5EncoderModel, UMT5EncoderModel

import prophy.backbones  # noqa: F401  registers the families
from prophy.assets import default_model
from prophy.branch import ProPhyBranch, attach, check_fits
from prophy.catalogue.describe import BRANCH_FOLDER, hub_id, is_local
from prophy.catalogue.limits import Clip, Recommended
from prophy.memory.offload import apply
from prophy.memory.plan import plan_parts
from prophy.memory.profiles import AUTO, Mode, Profile
from prophy.memory.stages import parts_of, published_like_pipeline


class _WithBranch:
    """What both pipelines share: they open a branch beside the base, and save it with the base."""

    @classmethod
    def from_pretrained(
        cls, base: str | Path, branch: str | Path | ProPhyBranch | None = None, **kwargs: Any
    ) -> DiffusionPipeline:
        """Open a base model and, beside it, a branch. Further arguments as in diffusers.

        Args:
            base: a diffusers folder or hub id; one that :meth:`save_pretrained` wrote brings its branch back.
            branch: a folder, a hub id or the branch itself; default: the one saved inside ``base``, if there is one.
                What ``prophy publish`` wrote brings what the backbone became beside it: its LoRA, or the transformer.

        Raises:
            FileNotFoundError: a folder that holds no model or no branch.
            ValueError: a base of another kind, a component or weights that are missing or damaged, or a branch of
                another base. One line each, which names the cure.
        """
        index = _read_index(base)
        _check_class(base, index, cls)
        inside = Path(base) / BRANCH_FOLDER
        if branch is None and inside.is_dir():
            branch = inside
        lora = _lora_beside(branch)
        if branch is not None:
            dtype = kwargs.get("dtype", kwargs.get("torch_dtype"))
            if "transformer" not in kwargs and (config := _file_beside(branch, "transformer/config.json")):
                kwargs["transformer"] = _open_transformer(index, config.parent, dtype)
            adapts_only = (lora or "transformer" in kwargs) and not _file_beside(branch, "config.json")
            kwargs["branch"] = None if adapts_only else _open_branch(branch, dtype)
        if Path(base).is_dir():
            _check_components(Path(base), index, given=kwargs.keys())
        try:
            if kwargs.get("branch") is not None:
                check_fits(_transformers(base, index, kwargs), kwargs["branch"])
            pipeline = super().from_pretrained(str(base), **kwargs)
            if lora is not None:
                pipeline.load_lora_weights(lora.parent, weight_name=lora.name)
            return pipeline
        except Exception as error:
            raise ValueError(f"cannot open {base}: {_first_line(error)}") from error


class ProPhyWanPipeline(_WithBranch, WanPipeline):
    """A stock ``WanPipeline`` with a physical branch beside its transformer, or beside both of Wan2.2 A14B's.

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
        present = [part for part in (transformer, transformer_2) if part is not None]
        self.attachment = None if branch is None else attach(present, branch)


class ProPhyCogVideoXPipeline(_WithBranch, CogVideoXPipeline):
    """A stock ``CogVideoXPipeline`` with a physical branch beside its transformer.

    Attributes:
        attachment: the :class:`prophy.branch.Attachment`: observe, steer, switch off. ``None`` without a branch.

    Raises:
        ValueError: the branch belongs to another transformer.
    """

    _optional_components: ClassVar[list[str]] = [*CogVideoXPipeline._optional_components, "branch"]

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: T5EncoderModel,
        vae: AutoencoderKLCogVideoX,
        transformer: CogVideoXTransformer3DModel,
        scheduler: CogVideoXDDIMScheduler | CogVideoXDPMScheduler,
        branch: ProPhyBranch | None = None,
    ) -> None:
        super().__init__(
            tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, transformer=transformer, scheduler=scheduler
        )
        self.register_modules(branch=branch)
        self.attachment = None if branch is None else attach(transformer, branch)


ProPhyPipeline = ProPhyWanPipeline | ProPhyCogVideoXPipeline

_OPENED_BY = {
    "WanPipeline": ProPhyWanPipeline,
    "ProPhyWanPipeline": ProPhyWanPipeline,
    "CogVideoXPipeline": ProPhyCogVideoXPipeline,
    "ProPhyCogVideoXPipeline": ProPhyCogVideoXPipeline,
}


def load(
    model: str | Path | None = None,
    branch: str | Path | ProPhyBranch | None = None,
    dtype: torch.dtype | None = None,
    *,
    profile: str = AUTO,
    device: torch.device | str | None = None,
    clip: Clip | None = None,
    **components: nn.Module,
) -> ProPhyPipeline:
    """Open a base model of any supported family and, beside it, a branch, and place both for generating.

    Args:
        model: a diffusers folder, a hub id or a name in :data:`prophy.catalogue.published.PUBLISHED`; default: the
            embedded model.
        branch: a folder, a hub id or the branch itself; default: the one saved inside ``model``, if there is one.
        dtype: of the weights; default: bfloat16 on an accelerator, float32 on the CPU.
        profile: a memory profile by its name, see :data:`prophy.memory.profiles.PROFILES`; ``auto`` plans which is the
            fastest that fits the accelerator's free memory.
        device: default: the accelerator, if there is one.
        clip: what ``auto`` plans for; default: the clip that the published model is recommended for.
        components: parts to use instead of the base's, by their names there: a fine-tuned ``transformer``, say.

    Raises:
        As :meth:`ProPhyWanPipeline.from_pretrained`; and ValueError for an unknown profile or device, or when no
        profile fits.
    """
    if profile != AUTO:
        Profile.parse(profile)  # before minutes are spent
    base = default_model() if model is None else hub_id(model)
    index = _read_index(base)
    _check_class(base, index)
    device = accelerator() if device is None else torch.device(device)
    if dtype is None:
        dtype = default_dtype(device)
    pipeline = _OPENED_BY[index["_class_name"]].from_pretrained(base, branch=branch, dtype=dtype, **components)
    place(pipeline, profile, device=device, clip=clip)
    return pipeline


def accelerator() -> torch.device:
    """Where a pipeline computes unless told otherwise: the accelerator, if there is one, or the CPU."""
    return torch.accelerator.current_accelerator() or torch.device("cpu")


def default_dtype(device: torch.device) -> torch.dtype:
    """Of the weights: bfloat16 on an accelerator, float32 on the CPU."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def place(
    pipeline: ProPhyPipeline, profile: str = AUTO, *, device: torch.device | None = None, clip: Clip | None = None
) -> None:
    """Put an opened pipeline into a memory profile; one that is in another leaves it first.

    Args:
        pipeline: opened by :func:`load`.
        profile: by its name; ``auto`` plans which is the fastest that fits the accelerator's free memory.
        device: default: the accelerator, if there is one.
        clip: what ``auto`` plans for; default: the clip that the published model is recommended for.

    Raises:
        ValueError: an unknown profile or device, or no profile fits.
    """
    device = accelerator() if device is None else device
    wanted = Profile(Mode.ALL) if profile == AUTO else Profile.parse(profile)
    if profile == AUTO and device.type == "cuda":
        wanted = fastest_profile(pipeline, torch.cuda.mem_get_info(device)[0], clip)
    apply(pipeline, wanted, device)


def fastest_profile(pipeline: ProPhyPipeline, vram: int, clip: Clip | None = None) -> Profile:
    """The fastest memory profile that fits.

    Args:
        pipeline: opened.
        vram: bytes of the accelerator that are free.
        clip: what to make; default: the clip that the published model is recommended for.

    Raises:
        ValueError: none fits; one line that names the smallest and the cure.
    """
    if clip is None:
        known = published_like_pipeline(pipeline)
        clip = (Recommended() if known is None else known.recommended).clip
    made = plan_parts(parts_of(pipeline), clip, vram=vram)
    if made.chosen is None:
        raise ValueError(made.reason)
    return made.chosen


# --- refusing what cannot open, before it costs minutes --------------------------------------------------------------


def _read_index(base: str | Path) -> dict[str, Any]:
    """``model_index.json`` of a folder or a hub id."""
    _check_folder(base, "model_index.json", "model")
    try:
        if (Path(base) / "model_index.json").is_file():
            return json.loads((Path(base) / "model_index.json").read_text())
        return DiffusionPipeline.load_config(str(base))
    except Exception as error:
        raise ValueError(f"cannot open {base}: {_first_line(error)}") from error


def _check_class(base: str | Path, index: dict[str, Any], opened_by: type | None = None) -> None:
    name = index.get("_class_name", "pipeline without a class")
    if name not in _OPENED_BY:
        if "ImageToVideo" in name:
            raise ValueError(f"{base} is image-to-video ({name}): ProPhy attaches to text-to-video models")
        raise ValueError(f"{base} is a {name}: open a WanPipeline or a CogVideoXPipeline")
    if opened_by is not None and not issubclass(opened_by, _OPENED_BY[name]):
        raise ValueError(f"{base} is a {name}, not for {opened_by.__name__}: open it with prophy.load")


def _check_components(folder: Path, index: dict[str, Any], given: Collection[str]) -> None:
    parts = {name for name, value in index.items() if isinstance(value, list) and value[0] is not None}
    for name in sorted(parts - set(given)):
        if not (folder / name).is_dir():
            raise ValueError(f"{folder} lacks its component {name}/: copy or download that folder again")
        _check_weights(folder / name)


def _transformers(base: str | Path, index: dict[str, Any], given: dict[str, Any]) -> list[nn.Module]:
    """The transformers that will be opened, by their configurations: reading their weights can take minutes."""
    found = []
    for name in ("transformer", "transformer_2"):
        _, class_name = index.get(name) or (None, None)
        if name in given:
            found.append(given[name])
        elif class_name is not None:
            kind = getattr(diffusers, class_name)
            with torch.device("meta"):
                found.append(kind.from_config(kind.load_config(str(base), subfolder=name)))
    return [transformer for transformer in found if transformer is not None]


def _check_weights(folder: Path) -> None:
    """Refuse weight files that are missing or cut short, by their sizes alone."""
    for index in folder.glob("*.safetensors.index.json"):
        for shard in sorted(set(json.loads(index.read_text())["weight_map"].values())):
            if not (folder / shard).is_file():
                raise ValueError(f"{folder} lacks {shard}: copy or download that file again")
    for path in sorted(folder.glob("*.safetensors")):
        if path.stat().st_size != _safetensors_size(path):
            raise ValueError(f"{path} is cut short or damaged: copy or download it again")


def _safetensors_size(path: Path) -> int:
    """The size that a safetensors file says it has, -1 where it says nothing sensible."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(length, 100_000_000)))
            ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            return -1
    return 8 + length + max(ends, default=0)


def _open_branch(branch: str | Path | ProPhyBranch, dtype: Any) -> ProPhyBranch:
    if isinstance(branch, ProPhyBranch):
        return branch
    _check_folder(branch, "config.json", "branch")
    if Path(branch).is_dir():
        _check_weights(Path(branch))
    if isinstance(dtype, dict):
        dtype = dtype.get("branch", dtype.get("default"))
    try:
        return ProPhyBranch.from_pretrained(branch, **({} if dtype is None else {"dtype": dtype}))
    except Exception as error:
        raise ValueError(f"cannot open the branch in {branch}: {_first_line(error)}") from error


def _file_beside(branch: str | Path | ProPhyBranch | None, name: str) -> Path | None:
    """A file of the folder or repository that a branch is opened from, if it has it."""
    if branch is None or isinstance(branch, ProPhyBranch):
        return None
    if is_local(branch):
        path = Path(branch) / name
        return path if path.is_file() else None
    try:
        return Path(hf_hub_download(str(branch), name))
    except (HfHubHTTPError, EntryNotFoundError, HFValidationError, OSError):
        return None


def _lora_beside(branch: str | Path | ProPhyBranch | None) -> Path | None:
    """The backbone's LoRA in a published folder; one of the branch itself may lie there too, under other names."""
    path = _file_beside(branch, LORA_WEIGHT_NAME_SAFE)
    if path is None:
        return None
    _check_weights(path.parent)
    with safe_open(path, "pt") as file:
        return path if any(name.startswith("transformer.") for name in file.keys()) else None  # noqa: SIM118


def _open_transformer(index: dict[str, Any], folder: Path, dtype: Any) -> nn.Module:
    if isinstance(dtype, dict):
        dtype = dtype.get("transformer", dtype.get("default"))
    _check_weights(folder)
    kind = getattr(diffusers, index["transformer"][1])
    try:
        return kind.from_pretrained(folder, **({} if dtype is None else {"dtype": dtype}))
    except Exception as error:
        raise ValueError(f"cannot open the transformer in {folder}: {_first_line(error)}") from error


def _check_folder(path: str | Path, marker: str, kind: str) -> None:
    """Refuse a path that looks local and does not hold the format; a hub id is left to diffusers."""
    folder = Path(path)
    if is_local(path) and not (folder / marker).is_file():
        raise FileNotFoundError(f"{folder} holds no {kind} ({marker} is missing): give a {kind} folder or a hub id")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
