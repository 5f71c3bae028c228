"""What surrounds a pipeline's weights: the device, how exactly it multiplies, and what somebody else put among them."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from diffusers import ModelMixin
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn.modules import module as torch_module

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

#: whose hooks and modules are known: they change nothing, or are recorded as adapters, caching or quantisation
_KNOWN = frozenset(
    ("prophy", "torch", "diffusers", "transformers", "peft", "accelerate", "bitsandbytes", "torchao", "optimum", "gguf")
)
_NAMED = 3  # of what is foreign in one part


def device_of(pipeline: DiffusionPipeline) -> str:
    """What a pipeline computes on: the kind, and in brackets an accelerator's name or a CPU's instructions."""
    device = pipeline._execution_device
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.backends.cpu.get_cpu_capability()})" if device.type == "cpu" else str(device.type)


def precision_of(pipeline: DiffusionPipeline) -> dict[str, str]:
    """What torch may multiply float32 in on a pipeline's device instead, by operation; empty: in float32."""
    backends = torch.backends
    if pipeline._execution_device.type == "cuda":
        matmul, conv = backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision
    else:
        matmul, conv = backends.mkldnn.matmul.fp32_precision, backends.mkldnn.conv.fp32_precision
    return {name: said for name, said in (("matmul", matmul), ("conv", conv)) if said not in ("none", "ieee")}


def foreign_in(part: nn.Module) -> str:
    """In words, what takes part in a component and is neither its own nor a known library's; empty: nothing.

    Forward hooks of torch's, another ``forward``, and modules of another class than its configuration gives. They are
    named and no more: what they compute cannot be digested.
    """
    part = getattr(part, "_orig_mod", part)  # of torch.compile
    found = list(_foreign(part))
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(found[:_NAMED]) + more


def _foreign(part: nn.Module) -> Iterator[str]:
    own, known = _own_classes(part), _KNOWN | {_package(type(part).__module__)}
    for hook in (*torch_module._global_forward_pre_hooks.values(), *torch_module._global_forward_hooks.values()):
        if _home(hook) not in known:
            yield f"the hook {_name(hook)} on every module"
    for path, module in part.named_modules():
        where = f" on {path}" if path else ""
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
            if _home(hook) not in known:
                yield f"the hook {_name(hook)}{where}"
        if (forward := vars(module).get("forward")) is not None and _home(forward) not in known:
            yield f"the forward {_name(forward)}{where}"
        kind, expected = type(module), own.get(path.replace(".base_layer", ""), type(module))
        is_own = _package(kind.__module__) in known and issubclass(kind, expected)
        if not (is_own or isinstance(module, BaseTunerLayer)):  # which are recorded as adapters
            yield f"the module {kind.__module__}.{kind.__qualname__}{where}"


_classes: weakref.WeakKeyDictionary[nn.Module, dict[str, type[nn.Module]]] = weakref.WeakKeyDictionary()


def _own_classes(part: nn.Module) -> dict[str, type[nn.Module]]:
    """The class that each module has by the part's configuration; none where that does not say."""
    if not isinstance(part, ModelMixin):
        return {}
    if part not in _classes:
        # without diffusers' own notes, by which it leaves out what they call defaults
        config = {name: value for name, value in part.config.items() if not name.startswith("_")}
        with torch.device("meta"):
            built = type(part).from_config(config)
        _classes[part] = {path: type(module) for path, module in built.named_modules()}
    return _classes[part]


def _plain(function: Callable[..., Any]) -> Any:
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__func__", function)


def _home(function: Callable[..., Any]) -> str:
    """The package in which the code of a function stands: a wrapper carries the name of what it wraps."""
    plain = _plain(function)
    code = getattr(plain, "__globals__", None)
    return _package(type(plain).__module__ if code is None else str(code.get("__name__", "")))


def _package(module: str) -> str:
    return module.partition(".")[0]


def _name(function: Callable[..., Any]) -> str:
    plain = _plain(function)
    named = plain if hasattr(plain, "__qualname__") else type(plain)
    return f"{named.__module__}.{named.__qualname__}"
