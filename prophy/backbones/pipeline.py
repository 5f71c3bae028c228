"""A pipeline of any family with a branch beside its transformer: opening one, and refusing what cannot open."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from diffusers import DiffusionPipeline
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError
from safetensors import safe_open
from torch import nn

from prophy.backbones.backbone import backbone_of, backbones
from prophy.backbones.lora import apply_lora, converted, fits_all, read_lora, remove_adapter
from prophy.backbones.opening import check_weights, first_line
from prophy.backbones.variants import variant_beside, variant_in
from prophy.branch import Attachment, ProPhyBranch, attach, check_fits
from prophy.catalogue.describe import BRANCH_FOLDER, check_part, is_local, read_branch
from prophy.catalogue.families import facts_of
from prophy.catalogue.limits import ClipRules
from prophy.catalogue.lora import LoraSource
from prophy.catalogue.published import PublishedModel, published_like
from prophy.schema import read_object

#: What names a branch: a folder, a hub id or the branch itself; False for none, None for the base model's own.
BranchSource = str | Path | ProPhyBranch | Literal[False] | None


class ProPhyPipeline(DiffusionPipeline):
    """What the pipelines of all families share: they open a branch beside the base, and save it with the base.

    A family's class derives from this one and from the stock pipeline, in this order; its ``__init__`` ends with
    :meth:`add_branch`.

    LoRAs are loaded, fused and taken out by diffusers' methods of the same names, in any memory profile.

    Attributes:
        attachment: observe, steer, schedule, switch off. None without a branch.
        rearranged: gives a context in which modules may be replaced: no offloading hook holds them there. Afterwards
            the memory profile is as before; :func:`prophy.memory.offload.apply` sets it.
    """

    _optional_components: ClassVar[list[str]] = ["branch"]
    attachment: Attachment | None
    rearranged: Callable[[], AbstractContextManager[None]] = staticmethod(nullcontext)

    def add_branch(self, branch: ProPhyBranch | None) -> None:
        """Attach a branch to the transformers that are registered, and register it; None registers that there is none.

        Raises:
            ValueError: the branch belongs to another transformer.
        """
        self.register_modules(branch=branch)
        self.attachment = None if branch is None else attach(transformers_of(self), branch)

    @classmethod
    def from_pretrained(
        cls, base: str | Path, branch: BranchSource = None, *, variant: str | None = None, **kwargs: Any
    ) -> ProPhyPipeline:
        """Open a base model and, beside it, a branch. Further arguments as in diffusers.

        Args:
            base: a diffusers folder or hub id; one that ``save_pretrained`` wrote brings its branch back.
            branch: a folder, a hub id or the branch itself; default: the one saved inside ``base``, if there is one.
                False opens the backbone alone. What ``prophy publish`` wrote brings what the backbone became beside
                it: its LoRA, or the transformer.
            variant: of the weight files, such as ``fp16``; default: the plain ones. In a folder a part that has no
                plain ones takes the only variant there is.

        Raises:
            FileNotFoundError: a folder that holds no model or no branch.
            ValueError: a base of another kind, a component or weights that are missing or damaged, or a branch of
                another base. One line each, which names the cure.
        """
        index = read_index(base)
        check_class(base, index, cls)
        inside = Path(base) / BRANCH_FOLDER
        if branch is None and inside.is_dir():
            branch = inside
        if branch is False:
            branch, kwargs["branch"] = None, None
        lora = _file_beside(branch, LORA_WEIGHT_NAME_SAFE)
        if branch is not None:
            dtype = kwargs.get("dtype", kwargs.get("torch_dtype"))
            if "transformer" not in kwargs and (config := _file_beside(branch, "transformer/config.json")):
                kwargs["transformer"] = _open_transformer(index, config.parent, dtype, variant)
            adapts_only = (lora or "transformer" in kwargs) and not _file_beside(branch, "config.json")
            kwargs["branch"] = None if adapts_only else _open_branch(branch, dtype, variant)
        if lora is not None and _is_branchs_own(lora, kwargs.get("branch")):
            lora = None
        if Path(base).is_dir():
            _check_components(Path(base), index, given=kwargs.keys())
            variant = variant_in(Path(base), index, variant, given=kwargs.keys())
        if variant is not None:
            kwargs["variant"] = variant
        try:
            if kwargs.get("branch") is not None:
                check_fits(_transformers(base, index, kwargs), kwargs["branch"])
            pipeline = super().from_pretrained(str(base), **kwargs)
            if lora is not None:
                pipeline.add_loras([LoraSource(lora)])
            return pipeline
        except Exception as error:
            raise ValueError(f"cannot open {base}: {first_line(error)}") from error

    # --- LoRAs -------------------------------------------------------------------------------------------------------

    def add_loras(self, loras: Iterable[LoraSource]) -> list[str]:
        """Load LoRAs beside those that act already: all of them, or none. Returns their adapters' names.

        Args:
            loras: what to load; without a noise it acts on every transformer of the pipeline.

        Raises:
            FileNotFoundError: no such file or folder.
            ValueError: it fits no layer or not all of it does, it is no LoRA that diffusers converts, or the pipeline
                has one transformer and a noise was given. One line that names the file; nothing was changed.
        """
        wanted = [(self._transformers_for(one), read_lora(one.file(), self), one.strength) for one in loras]
        names: list[str] = []
        with self.rearranged():
            try:
                for transformers, file, strength in wanted:
                    names.append(apply_lora(self, transformers, file, strength))
            except BaseException:
                for name, (transformers, *_) in zip(names, wanted, strict=False):
                    for transformer in transformers:
                        remove_adapter(transformer, name)
                raise
        return names

    def _transformers_for(self, lora: LoraSource) -> list[nn.Module]:
        every = transformers_of(self)
        if lora.noise is None:
            return every
        if len(every) == 1:
            raise ValueError(f"this model has one transformer for all noise: give {lora.name} without {lora.noise}=")
        return [every[0 if lora.noise == "high" else 1]]

    def load_lora_weights(
        self,
        source: str | Path | dict[str, torch.Tensor],
        adapter_name: str | None = None,
        hotswap: bool = False,
        *,
        weight_name: str | None = None,
        load_into_transformer_2: bool = False,
        **kwargs: Any,
    ) -> None:
        """Load one LoRA at strength 1; see diffusers for the arguments, and :meth:`add_loras` for what is refused."""
        if hotswap:
            second = {"load_into_transformer_2": True} if load_into_transformer_2 else {}
            with self.rearranged():
                super().load_lora_weights(source, adapter_name, True, weight_name=weight_name, **second, **kwargs)
            return
        if isinstance(source, dict) or kwargs:  # a revision, a token: what only diffusers' own reader knows
            how = {**kwargs, "weight_name": weight_name, "return_lora_metadata": True}
            tensors, config = type(self).lora_state_dict(source, **how)
            file = converted("the LoRA", tensors, self, config)
        else:
            file = read_lora(LoraSource(source if weight_name is None else f"{source}/{weight_name}").file(), self)
        every = transformers_of(self)
        if load_into_transformer_2 and len(every) == 1:
            raise ValueError("this model has one transformer for all noise: leave load_into_transformer_2 out")
        with self.rearranged():
            apply_lora(self, [every[load_into_transformer_2]], file, adapter_name=adapter_name)

    def unload_lora_weights(self) -> None:
        with self.rearranged():
            super().unload_lora_weights()

    def delete_adapters(self, adapter_names: list[str] | str) -> None:
        with self.rearranged():
            super().delete_adapters(adapter_names)

    def fuse_lora(self, *args: Any, **kwargs: Any) -> None:
        with self.rearranged():
            super().fuse_lora(*args, **kwargs)

    def unfuse_lora(self, *args: Any, **kwargs: Any) -> None:
        with self.rearranged():
            super().unfuse_lora(*args, **kwargs)


# --- what an opened pipeline says -------------------------------------------------------------------------------------


def transformers_of(pipeline: DiffusionPipeline) -> list[nn.Module]:
    """One, or two that take turns along the noise."""
    both = (pipeline.transformer, getattr(pipeline, "transformer_2", None))
    return [transformer for transformer in both if transformer is not None]


def pipeline_config_of(pipeline: DiffusionPipeline) -> dict[str, Any]:
    """The settings of a pipeline besides its parts."""
    parts = pipeline.components.keys()
    return {key: value for key, value in pipeline.config.items() if key not in parts and not key.startswith("_")}


def rules_of(pipeline: DiffusionPipeline) -> ClipRules:
    """What an opened pipeline of a registered family, with a branch or without, asks of a clip."""
    transformer = transformers_of(pipeline)[0]
    limit = pipeline.tokenizer.model_max_length
    return facts_of(type(transformer).__name__).clip_rules(transformer.config, pipeline.vae.config, limit)


def published_like_pipeline(pipeline: DiffusionPipeline) -> PublishedModel | None:
    """The published model that an opened pipeline has the shape of."""
    first, *others = transformers_of(pipeline)
    return published_like(type(first).__name__, first.config, 1 + len(others))


# --- refusing what cannot open, before it costs minutes --------------------------------------------------------------


def pipeline_classes() -> dict[str, type[ProPhyPipeline]]:
    """What opens a folder, by the pipeline class that its index names: the stock one or ours."""
    classes = {}
    for backbone in backbones():
        for kind in (backbone.stock_pipeline_class, backbone.pipeline_class):
            classes[kind.__name__] = backbone.pipeline_class
    return classes


def read_index(base: str | Path) -> dict[str, Any]:
    """``model_index.json`` of a folder or a hub id.

    Raises:
        ValueError, FileNotFoundError: there is none, or it cannot be read. One line.
    """
    _check_folder(base, "model_index.json", "model")
    try:
        if (Path(base) / "model_index.json").is_file():
            return read_object(Path(base) / "model_index.json", "copy or download it again")
        return DiffusionPipeline.load_config(str(base))
    except Exception as error:
        raise ValueError(f"cannot open {base}: {first_line(error)}") from error


def check_class(base: str | Path, index: dict[str, Any], opened_by: type | None = None) -> None:
    """Refuse a pipeline that is of no known family, or not of the one that opens it.

    Args:
        base: its folder or hub id, for the message.
        index: what :func:`read_index` gave.
        opened_by: a pipeline class; None for any.

    Raises:
        ValueError: such a pipeline. One line.
    """
    name = index.get("_class_name", "pipeline without a class")
    if not isinstance(name, str):
        raise ValueError(f"{base} names no class in model_index.json (_class_name={name!r}): copy that file again")
    known = pipeline_classes()
    if name not in known:
        if "ImageToVideo" in name:
            raise ValueError(f"{base} is image-to-video ({name}): ProPhy attaches to text-to-video models")
        stock = " or a ".join(backbone.stock_pipeline_class.__name__ for backbone in backbones())
        raise ValueError(f"{base} is a {name}: open a {stock}")
    if opened_by is not None and not issubclass(opened_by, known[name]):
        raise ValueError(f"{base} is a {name}, not for {opened_by.__name__}: open it with prophy.load")


def _check_components(folder: Path, index: dict[str, Any], given: Collection[str]) -> None:
    parts = {name for name, value in index.items() if isinstance(value, list) and value[0] is not None}
    for name in sorted(parts - set(given)):
        if not (folder / name).is_dir():
            raise ValueError(f"{folder} lacks its component {name}/: copy or download that folder again")
        check_part(folder / name)
        check_weights(folder / name)


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}


def _transformers(base: str | Path, index: dict[str, Any], given: dict[str, Any]) -> list[nn.Module]:
    """The transformers that will be opened, by their configurations: reading their weights can take minutes."""
    found = []
    for name in ("transformer", "transformer_2"):
        _, class_name = index.get(name) or (None, None)
        if name in given:
            found.append(given[name])
        elif class_name is not None:
            kind = backbone_of(class_name).transformer_class
            with torch.device("meta"):
                found.append(kind.from_config(kind.load_config(str(base), subfolder=name)))
    return [transformer for transformer in found if transformer is not None]


def _open_branch(branch: str | Path | ProPhyBranch, dtype: Any, variant: str | None) -> ProPhyBranch:
    if isinstance(branch, ProPhyBranch):
        return branch
    _check_folder(branch, "config.json", "branch")
    if Path(branch).is_dir():
        read_branch(branch)
        check_weights(Path(branch))
    variant = variant_beside(branch, variant)
    if isinstance(dtype, dict):
        dtype = dtype.get("branch", dtype.get("default"))
    try:
        return ProPhyBranch.from_pretrained(branch, **_given(dtype=dtype, variant=variant))
    except Exception as error:
        raise ValueError(f"cannot open the branch in {branch}: {first_line(error)}") from error


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


def _is_branchs_own(lora: Path, branch: ProPhyBranch | None) -> bool:
    """Whether a LoRA beside a branch adapts the branch itself: it fits there, and does not say transformer."""
    check_weights(lora.parent)
    if branch is None:
        return False
    with safe_open(lora, "pt") as file:
        return fits_all(branch, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


def _open_transformer(index: dict[str, Any], folder: Path, dtype: Any, variant: str | None) -> nn.Module:
    if isinstance(dtype, dict):
        dtype = dtype.get("transformer", dtype.get("default"))
    check_weights(folder)
    variant = variant_beside(folder, variant)
    kind = backbone_of(index["transformer"][1]).transformer_class
    try:
        return kind.from_pretrained(folder, **_given(dtype=dtype, variant=variant))
    except Exception as error:
        raise ValueError(f"cannot open the transformer in {folder}: {first_line(error)}") from error


def _check_folder(path: str | Path, marker: str, kind: str) -> None:
    """Refuse a path that looks local and does not hold the format; a hub id is left to diffusers."""
    folder = Path(path)
    if is_local(path) and not (folder / marker).is_file():
        raise FileNotFoundError(f"{folder} holds no {kind} ({marker} is missing): give a {kind} folder or a hub id")
