"""What surrounds a pipeline's weights: the device, how exactly it multiplies, and what somebody else put among them."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import torch
from diffusers import ModelMixin
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn.modules import module as torch_module

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, SchedulerMixin

#: whose hooks and modules are known: they change nothing, or are recorded as adapters, caching or quantisation
_KNOWN = frozenset(
    ("prophy", "torch", "diffusers", "transformers", "peft", "accelerate", "bitsandbytes", "torchao", "optimum", "gguf")
)
#: and the standard library: what libraries wrap their own methods in
_WRAPPING = frozenset(("huggingface_hub", "typing_extensions"))
_NAMED = 3  # of what is foreign in one part
_FUNCTIONS = (FunctionType, MethodType, partial)


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


def kernels_left_out() -> str:
    """Which of torch's own kernels of attention it is told to leave out, in words; empty: none."""
    cuda = torch.backends.cuda  # they switch a CPU's, too
    switches = {
        "flash": cuda.flash_sdp_enabled(),
        "mem_efficient": cuda.mem_efficient_sdp_enabled(),
        "math": cuda.math_sdp_enabled(),
        "cudnn": cuda.cudnn_sdp_enabled(),
    }
    return " and ".join(name for name, is_on in switches.items() if not is_on)


def foreign_in(part: nn.Module) -> str:
    """In words, what takes part in a component and is neither its own nor a known library's; empty: nothing.

    Forward hooks of torch's; methods put in place of those of its modules, of their classes or of their attention
    processors; other processors; and modules of another class than its configuration gives. They are named and no more:
    what they compute cannot be digested.
    """
    return _listed(_foreign(getattr(part, "_orig_mod", part)))  # of torch.compile


def foreign_around(pipeline: DiffusionPipeline, scheduler: SchedulerMixin) -> dict[str, str]:
    """As :func:`foreign_in`, of the methods of a pipeline and of its scheduler, and of torch's functions, by name."""
    found = {
        "torch": _listed(_put_into(nn.functional, _KNOWN, "torch.nn.functional")),
        "pipeline": _listed(_methods(pipeline)),
        "scheduler": _listed(_methods(scheduler)),
    }
    if _package((kind := type(scheduler)).__module__) not in _KNOWN:  # its name alone could be a known one's
        found["scheduler"] = f"the class {kind.__module__}.{kind.__qualname__}"
    return {name: said for name, said in found.items() if said}


def _listed(found: Iterable[str]) -> str:
    said = list(found)
    more = f" and {len(said) - _NAMED} more" if len(said) > _NAMED else ""
    return ", ".join(said[:_NAMED]) + more


def _foreign(part: nn.Module) -> Iterator[str]:
    own, known = _own_classes(part), _KNOWN | {_package(type(part).__module__)}
    for hook in (*torch_module._global_forward_pre_hooks.values(), *torch_module._global_forward_hooks.values()):
        if _home(hook) not in known:
            yield f"the hook {_name(hook)} on every module"
    classes: dict[type, None] = {}
    for path, module in part.named_modules():
        where = f" on {path}" if path else ""
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
            if _home(hook) not in known:
                yield f"the hook {_name(hook)}{where}"
        yield from _own_methods(module, known, where)
        kind, expected = type(module), own.get(path.replace(".base_layer", ""), type(module))
        is_own = _package(kind.__module__) in known and issubclass(kind, expected)
        if not (is_own or isinstance(module, BaseTunerLayer)):  # which are recorded as adapters
            yield f"the module {kind.__module__}.{kind.__qualname__}{where}"
        classes |= dict.fromkeys(kind.__mro__)
        processor = vars(module).get("processor")
        if processor is not None:
            if _package((kind := type(processor)).__module__) not in known:
                yield f"the processor {kind.__module__}.{kind.__qualname__}{where}"
            yield from _own_methods(processor, known, where)
            classes |= dict.fromkeys(kind.__mro__)
    yield from _class_methods(classes, known)


def _methods(owner: Any) -> Iterator[str]:
    """What stands in for methods of an object or of its class."""
    known = _KNOWN | {_package(type(owner).__module__)}
    yield from _own_methods(owner, known, "")
    yield from _class_methods(type(owner).__mro__, known)


def _own_methods(owner: Any, known: frozenset[str], where: str) -> Iterator[str]:
    for name, value in vars(owner).items():
        # accelerate keeps there what it found in place of forward
        is_method = name == "_old_forward" or callable(getattr(type(owner), name, None))
        if is_method and callable(value) and _is_foreign(value, known):
            yield f"the {name.removeprefix('_old_')} {_name(value)}{where}"


def _class_methods(classes: Iterable[type], known: frozenset[str]) -> Iterator[str]:
    for kind in classes:
        if _package(kind.__module__) in known:
            yield from _put_into(kind, known, kind.__qualname__)


def _put_into(owner: Any, known: frozenset[str], called: str) -> Iterator[str]:
    """Functions that somebody put into a class or a module of a known library."""
    for name, value in vars(owner).items():
        if isinstance(value, _FUNCTIONS) and _is_foreign(value, known):
            yield f"the function {_name(value)} as {called}.{name}"


def _is_foreign(function: Callable[..., Any], known: frozenset[str]) -> bool:
    home = _home(function)
    return home not in known and home not in _WRAPPING and home not in sys.stdlib_module_names


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
