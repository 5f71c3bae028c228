"""What made a clip: the model's name, the digest of its weights, how they were computed, whether its branch took part.

The digest is taken of what computes, not of where it came from: files are believed only while the tensors are theirs.
"""

from __future__ import annotations

import hashlib
import json
import re
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.hooks import HookRegistry
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open
from torch import nn

from prophy.backbones.backbone import is_compiled
from prophy.backbones.lora import adapted_layers
from prophy.backbones.pipeline import pipeline_config_of
from prophy.branch import ProPhyBranch
from prophy.files import file_sha256, sha256, visible
from prophy.generation.sampling import scheduler_for
from prophy.generation.settings import GenerationSettings
from prophy.generation.surroundings import device_of, foreign_around, foreign_in, kernels_left_out, precision_of
from prophy.memory.offload import GROUP_HOOKS, profile_of, state_of
from prophy.runs.computation import Adapter, Computation

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Tensors = Mapping[str, torch.Tensor]


# --- digests ----------------------------------------------------------------------------------------------------------


def model_hash(pipeline: DiffusionPipeline) -> str:
    """SHA-256 of the weights of every component that takes part, 64 hexadecimal digits.

    A branch that is switched off takes no part: the digest is that of the backbone opened with ``branch=False``.
    A component whose tensors are those of the folder it was opened from is hashed by the files; any other, cast to
    another dtype, quantised, fused or changed, by its tensors. Adapters that act are hashed with their scales.
    """
    return _joined({name: _component_hash(part) for name, part in _taking_part(pipeline).items()})


def origin_hash(pipeline: DiffusionPipeline) -> str:
    """:func:`model_hash` as release 0.1 took it: of the files a component was opened from, whatever became of them."""
    return _joined({name: _origin_hash(part) for name, part in _taking_part(pipeline).items()})


def _taking_part(pipeline: DiffusionPipeline) -> dict[str, nn.Module]:
    off = not branch_is_on(pipeline)
    return {
        name: part
        for name, part in sorted(pipeline.components.items())
        if isinstance(part, nn.Module) and not (off and isinstance(part, ProPhyBranch))
    }


def _joined(hashes: Mapping[str, str]) -> str:
    return sha256("".join(f"{name}:{digest}\n" for name, digest in hashes.items()))


def _component_hash(component: nn.Module) -> str:
    base, adapters = _Weights.of(component), _acting(component)
    if not adapters:
        return base.digest(component)
    return sha256("\n".join([base.digest(component), *(one.sha256 for one in adapters)]))


def _origin_hash(component: nn.Module) -> str:
    files = [path for group in _files_of(component).values() for path in group]
    digest = hashlib.sha256(b"".join(bytes.fromhex(file_sha256(path)) for path in sorted(files)))
    if bool(getattr(component, "peft_config", None)) or not files:
        for name, tensor in sorted(state_of(component).items()):
            if not files or "lora_" in name:
                digest.update(_described(name, tensor))
    return digest.hexdigest()


@dataclass(frozen=True)
class _Weights:
    """A component's tensors without its adapters, by the names of the files."""

    tensors: Tensors

    @classmethod
    def of(cls, component: nn.Module) -> _Weights:
        state = state_of(component)
        layers = [f"{name}." for name, layer in component.named_modules() if isinstance(layer, BaseTunerLayer)]
        if layers:
            adapted = tuple(layers)
            state = {
                name.replace(".base_layer.", "."): tensor
                for name, tensor in state.items()
                if ".base_layer." in name or not name.startswith(adapted)
            }
        return cls(state)

    def digest(self, component: nn.Module) -> str:
        """Of the files, if these are their tensors, else of the tensors; taken once while nothing changes."""
        summary = self._summary()
        known = _digests.get(component)
        if known is None or known[0] != summary:
            known = _digests[component] = (summary, self._digest(_files_of(component)))
        return known[1]

    def _digest(self, files: Mapping[str, list[Path]]) -> str:
        for group in files.values():
            if self._are_in(group):
                return hashlib.sha256(b"".join(bytes.fromhex(file_sha256(path)) for path in group)).hexdigest()
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            digest.update(_described(name, tensor))
        return digest.hexdigest()

    def _are_in(self, files: list[Path]) -> bool:
        """Whether files hold these tensors, bit for bit; they may hold more, and once what two names share."""
        found: dict[str, torch.Tensor] = {}
        for path in files:
            try:
                with safe_open(path, "pt") as file:
                    for name in self.tensors.keys() & set(file.keys()):
                        if not _same(file.get_tensor(name), self.tensors[name]):
                            return False
                        found[name] = self.tensors[name]
            except (OSError, SafetensorError):
                return False
        rest = (tensor for name, tensor in self.tensors.items() if name not in found)
        return bool(found) and all(any(_same(one, other) for other in found.values()) for one in rest)

    def _summary(self) -> str:
        """A digest of sums, to notice a change without reading every byte back from an accelerator.

        Of columns and of rows: experts that changed places leave the sums of columns alone.
        """
        digest = hashlib.sha256()
        for name, tensor in self.tensors.items():
            raw = _raw(tensor)
            width = next(size for size in (1024, 64, 4, 1) if len(raw) % size == 0)
            rows = raw.view(len(raw) // width, width)
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            for along in (0, 1):
                digest.update(rows.sum(along, dtype=torch.int64).cpu().numpy().tobytes())
        return digest.hexdigest()


_digests: weakref.WeakKeyDictionary[nn.Module, tuple[str, str]] = weakref.WeakKeyDictionary()


def _files_of(component: nn.Module) -> dict[str, list[Path]]:
    """The weight files of the folder that a component was opened from, by their variant."""
    origin = getattr(getattr(component, "config", None), "_name_or_path", "")
    groups: dict[str, list[Path]] = {}
    for path in visible(Path(origin), "*.safetensors") if origin else []:
        variant = re.sub(r"-\d+-of-\d+$", "", path.stem).partition(".")[2]
        groups.setdefault(variant, []).append(path)
    return groups


def _raw(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor, uint8; of a quantised one, those of the tensors that it is made of."""
    if hasattr(tensor, "__tensor_flatten__"):
        return torch.cat([_raw(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0]])
    return tensor.detach().contiguous().flatten().view(torch.uint8)


def _described(name: str, tensor: torch.Tensor) -> bytes:
    return f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode() + _raw(tensor).cpu().numpy().tobytes()


def _same(first: torch.Tensor, second: torch.Tensor) -> bool:
    alike = first.shape == second.shape and first.dtype == second.dtype
    return alike and torch.equal(_raw(first).to(second.device), _raw(second))


# --- how it is computed -----------------------------------------------------------------------------------------------


def computation_of(pipeline: DiffusionPipeline, settings: GenerationSettings | None = None) -> Computation:
    """How a pipeline computes, besides its weights; with settings, under the scheduler that they ask for.

    Raises:
        GenerationError: the settings ask for a scheduler that the model cannot have.
    """
    scheduler = pipeline.scheduler if settings is None else scheduler_for(pipeline.scheduler, settings)
    parts = _taking_part(pipeline)
    transformers = {name: part for name, part in parts.items() if name.startswith("transformer")}
    return Computation(
        dtypes={name: _dtype(part) for name, part in parts.items()},
        quantisation={name: method for name, part in parts.items() if (method := _quantisation(part))},
        attention={name: _attention(part) for name, part in transformers.items()},
        caching={name: caching for name, part in transformers.items() if (caching := _caching(part))},
        compilation={name: "torch.compile" for name, part in transformers.items() if is_compiled(part)},
        profile=_profile(pipeline),
        scheduler=type(scheduler).__name__,
        scheduler_config=_plain_config(scheduler.config),
        configuration=_configuration(pipeline, parts),
        adapters=tuple(
            Adapter(name, one.name, one.strength, one.sha256) for name, part in parts.items() for one in _acting(part)
        ),
        foreign={name: foreign for name, part in parts.items() if (foreign := foreign_in(part))}
        | foreign_around(pipeline, scheduler),
        device=device_of(pipeline),
        precision=precision_of(pipeline),
    )


@dataclass(frozen=True)
class _Acting:
    """An adapter that acts on one component."""

    name: str
    strength: float
    sha256: str


def _acting(component: nn.Module) -> list[_Acting]:
    """The adapters that act on a component beside its weights: switched on, not fused, of a scale that is not 0."""
    if not adapted_layers(component):
        return []
    state = state_of(component)
    said: dict[str, list[bytes]] = {}
    strengths: dict[str, list[float]] = {}
    for path, layer in component.named_modules():
        if not isinstance(layer, BaseTunerLayer) or layer.disable_adapters or layer.merged:
            continue
        own = {name[len(path) + 1 :]: tensor for name, tensor in sorted(state.items()) if name.startswith(f"{path}.")}
        for adapter in layer.active_adapters:
            tensors = {n: t for n, t in own.items() if not n.startswith("base_layer.") and adapter in n.split(".")}
            scale = float(getattr(layer, "scaling", {}).get(adapter, 1.0))
            # Of decomposed weights the magnitudes act at scale 0 too.
            if not tensors or (scale == 0 and not any("magnitude" in n for n in tensors)):
                continue
            lines = said.setdefault(adapter, [])
            lines.append(f"{path} {scale!r}\n".encode())
            lines += [_described(".".join(p for p in n.split(".") if p != adapter), t) for n, t in tensors.items()]
            alphas, ranks = getattr(layer, "lora_alpha", {}), getattr(layer, "r", {})
            own_scale = alphas[adapter] / ranks[adapter] if adapter in alphas and ranks.get(adapter) else 1.0
            strengths.setdefault(adapter, []).append(scale / own_scale if own_scale else scale)
    return [
        _Acting(
            name, round(sum(strengths[name]) / len(strengths[name]), 6), hashlib.sha256(b"".join(lines)).hexdigest()
        )
        for name, lines in said.items()
    ]


def _dtype(part: nn.Module) -> str:
    """What most of a part's weights are stored in, and what they are computed in by layerwise casting or autocast."""
    sizes: dict[torch.dtype, int] = {}
    for parameter in part.parameters():
        sizes[parameter.dtype] = sizes.get(parameter.dtype, 0) + parameter.numel()
    stored = str(max(sizes, key=lambda dtype: sizes[dtype])).removeprefix("torch.") if sizes else "nothing"
    for module in part.modules():
        registry = getattr(module, "_diffusers_hook", None)
        hook = registry.get_hook("layerwise_casting") if isinstance(registry, HookRegistry) else None
        if hook is not None:
            return f"{stored}, computed in {str(hook.compute_dtype).removeprefix('torch.')}"
    device = next((parameter.device.type for parameter in part.parameters()), "cpu")
    device = "cpu" if device == "meta" else device
    if torch.is_autocast_enabled(device):
        return f"{stored}, autocast to {str(torch.get_autocast_dtype(device)).removeprefix('torch.')}"
    return stored


def _quantisation(part: nn.Module) -> str:
    config = getattr(getattr(part, "config", None), "quantization_config", None)
    if config is None:
        return ""
    method = config.get("quant_method", "") if isinstance(config, Mapping) else getattr(config, "quant_method", "")
    return str(getattr(method, "value", method) or type(config).__name__)


def _attention(transformer: nn.Module) -> str:
    default = _AttentionBackendRegistry.get_active_backend()[0]
    names = {
        str(getattr(backend, "value", backend))
        for module in transformer.modules()
        if (processor := getattr(module, "processor", None)) is not None
        for backend in [getattr(processor, "_attention_backend", None) or default]
    }
    kinds = {type(m.processor).__name__ for m in transformer.modules() if getattr(m, "processor", None) is not None}
    without = f" without {left_out}" if (left_out := kernels_left_out()) else ""
    return f"{' and '.join(sorted(names))} ({' and '.join(sorted(kinds))}){without}" if names else f"its own{without}"


_CASTING_HOOKS = ("layerwise_casting", "peft_autocast_disable")


def _caching(transformer: nn.Module) -> str:
    config = getattr(transformer, "_cache_config", None)
    if config is None:  # hooks of diffusers can be set without it, such as by apply_first_block_cache
        registries = (getattr(module, "_diffusers_hook", None) for module in transformer.modules())
        hooks = (pair for one in registries if isinstance(one, HookRegistry) for pair in one.hooks.items())
        names = {name for name, hook in hooks if not type(hook).__module__.startswith("prophy.")}  # the branch's own
        return " and ".join(sorted(names - {*GROUP_HOOKS, *_CASTING_HOOKS}))
    values = {name: v for name, v in sorted(vars(config).items()) if isinstance(v, bool | int | float | str)}
    return f"{type(config).__name__}({', '.join(f'{name}={value}' for name, value in values.items())})"


def _configuration(pipeline: DiffusionPipeline, parts: Mapping[str, nn.Module]) -> dict[str, dict[str, Any]]:
    """Of the pipeline itself and of its parts; of a tokenizer what it makes of texts, digested."""
    found = {"pipeline": _plain_config(pipeline_config_of(pipeline))}
    for name, part in parts.items():
        config = getattr(part, "config", {})
        plain = _plain_config(config.to_dict() if hasattr(config, "to_dict") else config)
        found[name] = {key: value for key, value in plain.items() if key not in _NOTES}
    backend = getattr(getattr(pipeline, "tokenizer", None), "backend_tokenizer", None)
    if backend is not None:
        own = json.loads(backend.to_str())
        calls = {"padding", "truncation"}  # every call leaves what it asked for there
        found["tokenizer"] = {"sha256": sha256(json.dumps({k: v for k, v in own.items() if k not in calls}))}
    return {name: config for name, config in found.items() if config}


_NOTES = ("architectures", "dtype", "torch_dtype", "transformers_version")  # what transformers notes for itself


def _profile(pipeline: DiffusionPipeline) -> str:
    """The memory profile, with the tiling that the autoencoder really does."""
    mode = str(profile_of(pipeline).mode)
    return f"{mode}+tiling" if getattr(pipeline.vae, "use_tiling", False) else mode


def _plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without diffusers' own notes, such as the version, and as JSON gives it back; infinity as a word."""
    kept = {key: value for key, value in sorted(config.items()) if not key.startswith("_")}
    return json.loads(json.dumps(kept, default=str), parse_constant=str)


# --- names ------------------------------------------------------------------------------------------------------------


def model_id(pipeline: DiffusionPipeline) -> str:
    """A folder's name or a hub id; never a path of this machine."""
    origin = str(getattr(pipeline.config, "_name_or_path", "") or "")
    return (Path(origin).name if Path(origin).is_dir() else origin) or type(pipeline).__name__


def branch_is_on(pipeline: DiffusionPipeline) -> bool:
    """Whether a branch takes part in what the pipeline generates."""
    attachment = getattr(pipeline, "attachment", None)
    return attachment is not None and attachment.enabled


@contextmanager
def branch_switched(pipeline: DiffusionPipeline, on: bool) -> Iterator[None]:
    """Let the branch of an opened pipeline take part inside the block, or not; without a branch nothing changes."""
    attachment = getattr(pipeline, "attachment", None)
    with nullcontext() if attachment is None else attachment.switched(on):
        yield
