"""LoRA files beside a branch: read in every convention that diffusers converts, applied whole or not at all.

Diffusers converts the names and peft computes; added here is what they leave open: names without the prefix that they
look for, the scale that a file asks for, and a refusal where a tensor would have been left out without a word.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.utils import convert_unet_state_dict_to_peft
from diffusers.utils import logging as diffusers_logging
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from torch import nn

from prophy.backbones.backbone import backbone_of
from prophy.backbones.lora_scale import LoraScale
from prophy.catalogue.families import facts_of
from prophy.catalogue.published import PUBLISHED
from prophy.files import check_file
from prophy.schema import parsed, read_object

logger = logging.getLogger(__name__)

Tensors = dict[str, torch.Tensor]

_DIFFUSERS = "transformer."
_ORIGINAL = "diffusion_model."  # before the authors' own names, as ComfyUI and lightx2v write them
_FLAT = "lora_unet_"  # kohya's and musubi-tuner's
_WRAPPERS = re.compile(r"^pipe\.dit\.|(?:^|(?<=\.))(?:module|_orig_mod|base_model\.model)\.")  # held it in training
_OF_TEXT = ("lora_te", "text_encoder.")  # kohya's and diffusers' names of a text encoder's part
_OWN_NAMES = re.compile(r"(self_attn|cross_attn)\.\w+\.|ffn\.\d\.|^(head\.head|(time|text)_(embedding|projection))\.")
_BLOCK = re.compile(r"(transformer_)?blocks[._](\d+)[._]")
_QUERY = re.compile(r"(to_q|self_attn[._]q)\.(lora_A|lora_down|lora\.down)\.")


@dataclass(frozen=True)
class LoraFile:
    """A LoRA in diffusers' names.

    Attributes:
        name: of the file.
        tensors: by their names, which begin with ``transformer.``; the second factors times the scale asked for.
        left_out: tensors of the file, not zero, for which diffusers has no place, such as differences of norms.
    """

    name: str
    tensors: Tensors
    left_out: tuple[str, ...]


# --- reading ----------------------------------------------------------------------------------------------------------


def read_lora(path: Path, pipeline: DiffusionPipeline) -> LoraFile:
    """Read a LoRA file.

    Raises:
        ValueError: it is damaged, or no LoRA that diffusers converts for this pipeline. One line.
    """
    try:
        with safe_open(check_file(path), "pt") as file:
            tensors = {name: _computable(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is cut short or damaged ({error}): copy or download it again") from None
    return converted(path.name, tensors, pipeline, _config_of(path, metadata))


def _config_of(path: Path, metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """What a LoRA's file, or peft's beside it, says of its adapter."""
    cure = "copy or download it again"
    if LORA_ADAPTER_METADATA_KEY not in metadata:
        beside = path.with_name("adapter_config.json")  # peft's own format keeps the scale there
        is_pefts = path.name.startswith("adapter_model") and beside.is_file()
        return read_object(beside, cure) if is_pefts else None
    try:
        config = parsed(metadata[LORA_ADAPTER_METADATA_KEY])
    except ValueError as error:
        raise ValueError(f"{path} is damaged (its adapter's configuration: {error}): {cure}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} is damaged (its adapter's configuration is no object): {cure}")
    return config


def converted(
    name: str, tensors: Mapping[str, torch.Tensor], pipeline: DiffusionPipeline, config: Mapping[str, Any] | None = None
) -> LoraFile:
    """A LoRA's tensors in diffusers' names.

    Args:
        name: of the file, for messages.
        tensors: under the names of the file.
        pipeline: whose class converts.
        config: the peft adapter's, by field, with or without a prefix.

    Raises:
        ValueError: no LoRA that diffusers converts for this pipeline. One line.
    """
    if not hasattr(pipeline, "lora_state_dict"):
        raise ValueError(f"{name}: {type(pipeline).__name__} takes no LoRA")
    raw = _prefixed(tensors)
    if broken := next((key for key, tensor in tensors.items() if not tensor.isfinite().all()), None):
        raise ValueError(f"{name} holds values that are not numbers, in {broken}: copy or download it again")
    if empty := next((key for key, tensor in tensors.items() if not tensor.numel()), None):
        raise ValueError(f"{name} holds no values in {empty} (a pair of rank 0): copy or download it again")
    if other := next((key for key in tensors if key.startswith(_OF_TEXT)), None):
        raise ValueError(_not_alone(name, other))
    try:
        scale = LoraScale.of(config, _DIFFUSERS)
    except ValueError as error:
        raise ValueError(f"{name} is damaged ({error}): copy or download it again") from None
    try:
        with _quiet():
            state = type(pipeline).lora_state_dict(dict(raw))
        moved = {id(tensor) for tensor in state.values()}
        left_out = [
            key for key, tensor in raw.items() if id(tensor) not in moved and not _is_factor(key) and bool(tensor.any())
        ]
        if not any("lora_A" in key or ".lokr_" in key for key in state):
            state = convert_unet_state_dict_to_peft(state)
        state = _with_biases(_scaled(state, scale))
        if not state:
            raise ValueError(f"of its {len(raw)} tensors none is a factor")
    except (LookupError, ValueError, AttributeError, TypeError, RuntimeError, ArithmeticError) as error:
        raise ValueError(f"{name} is no LoRA that diffusers converts: {_said_by_diffusers(error)}") from error
    return LoraFile(name, state, tuple(left_out))


def _computable(tensor: torch.Tensor) -> torch.Tensor:
    """The same values, where they are of 8 bits in bfloat16: nothing is computed in float8."""
    return tensor.bfloat16() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor


def _prefixed(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """The same tensors under names that diffusers looks for: peft's, DiffSynth's and those without a prefix too."""
    named = {
        re.sub(r"\.(lora_[AB])\.[^.]+\.(weight|bias)$", r".\1.\2", _WRAPPERS.sub("", key)): tensor
        for key, tensor in tensors.items()
    }
    if any(key.startswith((_DIFFUSERS, _FLAT)) for key in named):
        return named
    bare = {key.removeprefix("model.").removeprefix(_ORIGINAL): tensor for key, tensor in named.items()}
    prefix = _ORIGINAL if any(_OWN_NAMES.search(key) for key in bare) else _DIFFUSERS
    return {prefix + key: tensor for key, tensor in bare.items()}


def _is_factor(key: str) -> bool:
    """Whether a tensor is one that conversion multiplies into others, or that is one of the two factors."""
    return key.endswith(".alpha") or ".lora" in key or "_lora" in key


def _scaled(state: Tensors, scale: LoraScale) -> Tensors:
    """Each pair times its scale: that of the alpha beside it, where diffusers leaves one in place, or of ``scale``."""
    alphas = {key.removesuffix(".alpha"): float(state[key]) for key in state if key.endswith(".alpha")}
    scaled = {key: tensor for key, tensor in state.items() if not key.endswith(".alpha")}
    modules = [key.removesuffix(".lora_B.weight") for key in scaled if key.endswith(".lora_B.weight")]
    ranks = {module: len(scaled.get(f"{module}.lora_A.weight", ())) for module in modules}
    ranks = {module: rank for module, rank in ranks.items() if rank}  # halves of pairs are refused where it is applied
    configured = scale.of_layers({module.removeprefix(_DIFFUSERS): rank for module, rank in ranks.items()})
    for module, rank in ranks.items():
        factor = alphas[module] / rank if module in alphas else configured[module.removeprefix(_DIFFUSERS)]
        if factor != 1:
            scaled[f"{module}.lora_B.weight"] = scaled[f"{module}.lora_B.weight"] * factor
    return scaled


def _with_biases(state: Tensors) -> Tensors:
    """With a bias of zero for each layer that has none, where others do: peft gives all layers one, or none."""
    if not any(key.endswith(".lora_B.bias") for key in state):
        return state
    missing = {
        key.removesuffix("weight") + "bias": torch.zeros(len(tensor), dtype=tensor.dtype)
        for key, tensor in state.items()
        if key.endswith(".lora_B.weight")
    }
    return {**missing, **state}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings of diffusers and peft: what they warn of is refused or named here."""
    before = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity(diffusers_logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        diffusers_logging.set_verbosity(before)


def _said_by_diffusers(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it lacks {error.args[0]}"
    if isinstance(error, IndexError) or "empty sequence" in str(error):
        return "it holds names that diffusers does not know"
    if unread := re.search(r"should be empty .*dict_keys\(\['([^']+)'", str(error)):
        return f"it holds {unread[1]}, which diffusers does not know"
    said = " ".join(line.strip() for line in str(error).strip().splitlines()[:2])  # the first may only announce
    return (said or type(error).__name__)[:200]


# --- applying ---------------------------------------------------------------------------------------------------------


def apply_lora(
    pipeline: DiffusionPipeline,
    transformers: Sequence[nn.Module],
    file: LoraFile,
    strength: float = 1.0,
    adapter_name: str | None = None,
) -> str:
    """Add a LoRA to transformers of a pipeline, beside those that act already. Returns the adapter's name.

    Args:
        pipeline: without offloading hooks, see ``rearranged`` of :class:`~prophy.backbones.pipeline.ProPhyPipeline`.
        transformers: which of its transformers.
        file: the LoRA.
        strength: factor of what it adds.
        adapter_name: default: made of the file's name.

    Raises:
        ValueError: a tensor of it fits no layer, or the name is taken; nothing was changed.
    """
    state = _without_prefix(file, transformers[0])
    for transformer in transformers:
        _check_fits(transformer, state, file.name)
    name = _free_name(file.name, transformers) if adapter_name is None else adapter_name
    if any(name in getattr(one, "peft_config", {}) for one in transformers):
        raise ValueError(f"there is an adapter {name} already: give {file.name} another name")
    layers = [layer for transformer in transformers for layer in adapted_layers(transformer)]
    if any(layer.merged or layer.disable_adapters for layer in layers):
        raise ValueError(f"{file.name} would change nothing beside adapters that are fused or off: unload those first")
    before = [_active(transformer) for transformer in transformers]
    learns = [(parameter, parameter.requires_grad) for one in transformers for parameter in one.parameters()]
    try:
        for transformer, active in zip(transformers, before, strict=True):
            with _quiet():
                type(pipeline).load_lora_into_transformer(
                    file.tensors,
                    transformer=transformer,
                    adapter_name=name,
                    low_cpu_mem_usage=True,
                )
                _check_applied(transformer, state, name, file.name)
            for layer in adapted_layers(transformer):
                # At 0 it does not act at all: of decomposed weights the magnitudes would stay.
                layer.set_adapter([*active, name] if strength else active, inference_mode=True)
                layer.set_scale(name, strength)
            for key, parameter in transformer.named_parameters():
                if name in key.split("."):
                    parameter.data = parameter.data.to(transformer.device)  # peft leaves it on the CPU
    except BaseException as error:
        for transformer in transformers:
            remove_adapter(transformer, name)
        if not isinstance(error, Exception) or (isinstance(error, ValueError) and file.name in str(error)):
            raise
        raise ValueError(f"{file.name} cannot be applied: {_said_by_diffusers(error)}") from error
    finally:
        for parameter, learnt in learns:
            parameter.requires_grad_(learnt)  # peft freezes all of the transformer
    if strength and not any(tensor.any() for key, tensor in state.items() if "lora_B" in key or "magnitude" in key):
        logger.warning("%s adds nothing: its second factors are all zero, as before a training's first step", file.name)
    if file.left_out:
        logger.warning(
            "%s: diffusers has no place for %d of its tensors, such as %s: they are left out",
            file.name,
            len(file.left_out),
            file.left_out[0],
        )
    return name


def adapted_layers(module: nn.Module) -> list[BaseTunerLayer]:
    """The layers of a module that have adapters, switched off ones too."""
    return [layer for layer in module.modules() if isinstance(layer, BaseTunerLayer)]


def remove_adapter(transformer: nn.Module, name: str) -> None:
    """Take an adapter out, whole or half loaded, and leave the layers as they were without it."""
    if not adapted_layers(transformer):
        return
    for parent in list(transformer.modules()):
        for child_name, child in list(parent.named_children()):
            if not isinstance(child, BaseTunerLayer):
                continue
            others = [active for active in child.active_adapters if active != name]
            child.delete_adapter(name)  # which lets another act instead
            if not any(getattr(child, kind) for kind in child.adapter_layer_names):
                setattr(parent, child_name, child.get_base_layer())
            else:
                child.set_adapter(others, inference_mode=True)
    getattr(transformer, "peft_config", {}).pop(name, None)
    if not adapted_layers(transformer):
        transformer.unload_lora()


def _active(transformer: nn.Module) -> list[str]:
    names = (name for layer in adapted_layers(transformer) for name in layer.active_adapters)
    return list(dict.fromkeys(names))


def _free_name(file: str, transformers: Sequence[nn.Module]) -> str:
    """An adapter's name, made of the file's: peft takes no dots, and diffusers no second of the same name."""
    taken = {name for transformer in transformers for name in getattr(transformer, "peft_config", {})}
    base = re.sub(r"\W+", "_", Path(file).stem).strip("_") or "lora"
    names = (base if number == 1 else f"{base}_{number}" for number in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


# --- what fits --------------------------------------------------------------------------------------------------------


def _without_prefix(file: LoraFile, transformer: nn.Module) -> Tensors:
    state = {key.removeprefix(_DIFFUSERS): t for key, t in file.tensors.items() if key.startswith(_DIFFUSERS)}
    if not any(_layer_of(key) for key in state):
        raise ValueError(_misfit(file.name, transformer, file.tensors))
    if other := next((key for key in file.tensors if not key.startswith(_DIFFUSERS)), None):
        raise ValueError(_not_alone(file.name, other))
    return state


def _not_alone(file: str, key: str) -> str:
    return f"{file} holds {key}, which is no part of a transformer: give a LoRA of one alone"


def _layer_of(key: str) -> str | None:
    """The layer that a tensor of a LoRA belongs to."""
    found = re.match(r"(.+?)\.(lora_|lokr_)", key)
    return found.group(1) if found else None


def _check_fits(transformer: nn.Module, state: Tensors, file: str) -> None:
    """Refuse a LoRA with a tensor for which the transformer has no layer, or one of another size."""
    layers = dict(transformer.named_modules())
    misfits = [key for key, tensor in state.items() if not _fits(layers.get(_layer_of(key) or ""), key, tensor)]
    _, blocks, width = _extent(state)
    is_unknown = len(misfits) == len(state) and not (blocks and width)
    if misfits and (is_unknown or _is_of_another_model(transformer, state)):
        raise ValueError(_misfit(file, transformer, state))
    if misfits:
        raise ValueError(
            f"{file}: {len(misfits)} of its {len(state)} tensors fit no layer of this {type(transformer).__name__}, "
            f"such as {misfits[0]} {tuple(state[misfits[0]].shape)}: it was made for another model"
        )
    if whole := next((key for key, tensor in state.items() if not tensor.is_floating_point()), None):
        raise ValueError(f"{file} holds whole numbers, in {whole}: it is quantised, give the one that is not")
    for down in (key for key in state if key.endswith(".lora_A.weight")):
        up = down.replace(".lora_A.", ".lora_B.")
        ranks = len(state[down]), state[up].shape[1] if up in state else len(state[down])
        if ranks[0] != ranks[1] or not ranks[0]:
            said = f"the pair of {_layer_of(down)} has the ranks {ranks[0]} and {ranks[1]}"
            raise ValueError(f"{file}: {said}: copy or download it again")
    halves = Counter(_layer_of(key) for key in state if key.endswith((".lora_A.weight", ".lora_B.weight")))
    if alone := next((layer for layer, count in halves.items() if count != 2), None):
        raise ValueError(f"{file} holds half of a pair for {alone}: copy or download it again")


def fits_all(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether a module has a layer of the right size for each tensor, by the names as they are."""
    layers = dict(module.named_modules())
    return all(_fits(layers.get(_layer_of(key) or ""), key, tensor) for key, tensor in tensors.items())


def _fits(layer: nn.Module | None, key: str, tensor: torch.Tensor) -> bool:
    base = layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer
    weight = getattr(base, "weight", None)
    if not isinstance(base, nn.Linear | nn.Conv3d) or weight is None:
        return False
    if key.endswith(("lora_A.weight", "lora_B.weight")) and tensor.ndim != (2 if isinstance(base, nn.Linear) else 5):
        return False
    if "lora_A" in key:
        return tensor.shape[1] == _sizes(base)[0]
    return "lora_B" not in key or (tensor.ndim > 0 and tensor.shape[0] == _sizes(base)[1])


def _sizes(layer: nn.Linear | nn.Conv3d) -> tuple[int, int]:
    """Channels in and out; a quantised weight has another shape than its layer."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels


def _check_applied(transformer: nn.Module, state: Tensors, name: str, file: str) -> None:
    applied = get_peft_model_state_dict(transformer, adapter_name=name)
    if lost := sorted(state.keys() ^ applied.keys()):
        raise ValueError(f"{file}: {len(lost)} of its tensors were not applied, such as {lost[0]}")
    if empty := next((key for key, tensor in applied.items() if tensor.is_meta), None):
        raise ValueError(f"{file} lacks {empty}: copy or download it again")


def _extent(tensors: Mapping[str, torch.Tensor]) -> tuple[str, int, int]:
    """How a LoRA's model calls its blocks, how many it has at least, and their width; 0 where names do not tell."""
    blocks = [found for key in tensors if (found := _BLOCK.search(key))]
    widths = Counter(tensor.shape[1] for key, tensor in tensors.items() if tensor.ndim > 1 and _QUERY.search(key))
    stack = "transformer_blocks" if blocks and blocks[0].group(1) else "blocks"
    width = widths.most_common(1)[0][0] if widths else 0
    return stack, 1 + max((int(found.group(2)) for found in blocks), default=-1), width


def _is_of_another_model(transformer: nn.Module, tensors: Mapping[str, torch.Tensor]) -> bool:
    stack, layers, width = _extent(tensors)
    family, config = backbone_of(transformer), transformer.config
    is_same = stack == family.facts.blocks and width == family.width(config) and layers <= family.num_blocks(config)
    return bool(layers and width) and not is_same


def _misfit(file: str, transformer: nn.Module, tensors: Mapping[str, torch.Tensor]) -> str:
    """One line: a LoRA fits nothing here, and what it was made for."""
    here = f"{file} fits no layer of this model ({type(transformer).__name__})"
    stack, layers, width = _extent(tensors)
    if not layers or not width:
        return f"{here}: it begins with {next(iter(tensors), 'nothing')}, which no LoRA of it does"
    made_for = [
        known.name
        for known in PUBLISHED.values()
        if facts_of(known.transformer_class).blocks == stack
        and known.transformer["num_attention_heads"] * known.transformer["attention_head_dim"] == width
        and known.transformer["num_layers"] >= layers
    ]
    model = f", as in {' and '.join(made_for)}" if made_for else ""
    return f"{here}: it is for {stack} 0 to {layers - 1} of width {width}{model}"
