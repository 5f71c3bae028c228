"""How much memory a computation holds at its highest, and how many operations it takes, from shapes alone.

The real modules run once on tensors of the ``meta`` device, which have a shape and no content; every tensor they make
counts from when its storage appears until it dies. So the peak follows from the stock code at any size, with no formula
to keep in step with it.

What a kernel allocates within itself never shows as a tensor; :data:`SCRATCH` adds it, for each device.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

aten = torch.ops.aten


@dataclass(frozen=True)
class Footprint:
    """What one computation needs besides the weights.

    Attributes:
        peak: bytes of the tensors alive at the highest point, with the scratch of the kernel that runs there.
        flops: floating-point operations of its matrix products, convolutions and attention.
        at: the operation that runs at the highest point.
    """

    peak: int
    flops: int
    at: str


def footprint(compute: Callable[[], object], device: str = "cuda", repeated: Iterable[nn.Module] = ()) -> Footprint:
    """Run a computation on meta tensors and count.

    Args:
        compute: makes its inputs itself, so that they count.
        device: ``cuda`` or ``cpu``: whose kernels would run.
        repeated: modules that are called many times with inputs of the same few shapes: only the first call with each
            is run, the others are taken to need the same.

    Raises:
        ValueError: no such device, or ``compute`` made no tensor on the meta device.
    """
    if device not in SCRATCH:
        raise ValueError(f"device {device!r} is not known here: use {' or '.join(SCRATCH)}")
    ledger = _Ledger(device)
    with ExitStack() as stack:
        for context in (torch.no_grad(), ledger, _FusedAttention(), *(_replayed(m, ledger) for m in repeated)):
            stack.enter_context(context)
        compute()
    if not ledger.peak:
        raise ValueError("the computation made no tensor on the meta device: move its modules and inputs there")
    return Footprint(ledger.peak, ledger.flops, ledger.at)


class _Ledger(TorchDispatchMode):
    """Counts the storages that the operations inside it make."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.peak = self.flops = self.live = 0
        self.at = ""
        self._scratch = SCRATCH[device]

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is aten._local_scalar_dense.default and args[0].is_meta:
            return torch.zeros((), dtype=args[0].dtype).item()  # meta tensors hold no data: 0 or False
        result = _SHAPES.get(func, func)(*args, **kwargs)
        known = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if _on_meta(leaf)}
        for leaf in tree_leaves(result):
            if _on_meta(leaf) and (storage := leaf.untyped_storage())._cdata not in known:  # else a view, or in place
                known.add(storage._cdata)
                self.live += storage.nbytes()
                weakref.finalize(storage, self._release, storage.nbytes()).atexit = False
        packet = func._overloadpacket
        scratch = self._scratch[packet](result, *args, **kwargs) if packet in self._scratch else 0
        self.reach(self.live + scratch, packet.__name__)
        if packet in _FLOPS:
            self.flops += _FLOPS[packet](*args, **kwargs, out_val=result)
        return result

    def reach(self, held: int, at: str) -> None:
        """Bytes held now."""
        if held > self.peak:
            self.peak, self.at = held, at

    def _release(self, nbytes: int) -> None:
        self.live -= nbytes


def _on_meta(leaf: object) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.is_meta


def _bins(x: torch.Tensor, weights: torch.Tensor | None = None, minlength: int = 0) -> torch.Tensor:
    return torch.empty(minlength, dtype=torch.int64, device="meta")  # more only for a value beyond


def _grouped(tokens_RD: torch.Tensor, weight_EDF: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    return tokens_RD.new_empty(len(tokens_RD), weight_EDF.shape[-1])


#: Operations that torch knows no shape of on the meta device: the content decides, or (grouped_mm) float32 is left out.
_SHAPES = {aten.bincount.default: _bins, aten._grouped_mm.default: _grouped}


# --- what kernels do -------------------------------------------------------------------------------------------------


class _FusedAttention(TorchFunctionMode):
    """Attention in one kernel, as on every device this project runs on; on meta tensors torch would spell it out."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            given = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | kwargs
            if given["query"].is_meta:
                mask = given.get("attn_mask")
                return _attention(given["query"], given["key"], given["value"], attn_mask=mask)[0]
        return func(*args, **kwargs)


_attention = aten._scaled_dot_product_flash_attention_for_cpu


def _attention_flops(query, key, value, *args, out_val=None, **kwargs) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _grouped_flops(tokens_RD, weight_EDF, *args, out_val=None, **kwargs) -> int:
    return 2 * math.prod(tokens_RD.shape) * weight_EDF.shape[-1]


_FLOPS = {**flop_registry, _attention: _attention_flops, aten._grouped_mm: _grouped_flops}

_LANES = 16  # channels that the blocked layouts of convolution kernels are padded to


def _blocked(x: torch.Tensor, channel_axes: tuple[int, ...]) -> int:
    """Bytes of a copy in a blocked layout."""
    shape = [math.ceil(n / _LANES) * _LANES if axis in channel_axes else n for axis, n in enumerate(x.shape)]
    return math.prod(shape) * x.element_size()


def _convolution_copies(out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, *args: Any) -> int:
    """Input, weights and output in the kernel's own layout; the output's is copied out once the input's is gone."""
    copied = _blocked(out, (1,))
    at_work = _blocked(x, (1,)) + _blocked(weight, (0, 1)) + copied - out.nbytes  # the output itself is not begun yet
    return max(at_work, copied)


def _cpu_convolution(
    out: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: list[int], *args: Any
) -> int:
    """oneDNN's copies; or all columns of the matrix product that torch makes of what it thinks too small for oneDNN."""
    if x.dtype is not torch.float32 or _onednn_takes(x, weight, stride):
        return _convolution_copies(out, x, weight)
    taps = math.prod(weight.shape[2:])
    return 0 if taps == 1 else taps * weight.shape[1] * (out.nbytes // out.shape[1])


def _onednn_takes(x: torch.Tensor, weight: torch.Tensor, stride: list[int]) -> bool:
    """torch's own rule for float32 (``ConvParams::use_mkldnn``), for undilated convolutions in one group."""
    more_than_a_product = max(stride) > 1 or len(x) >= 16 or weight.shape[-2:] != (1, 1) or torch.get_num_threads() > 1
    return more_than_a_product and (min(weight.shape[-2:]) > 3 or len(x) > 1 or math.prod(x.shape[:4]) > 20480)


#: Bytes that a kernel allocates within itself, by device and operation. ``cpu`` is what oneDNN and torch do on x86,
#: checked by ``benchmarks/plan.py``; ``cuda`` takes convolutions to work on copies in their own layout, unmeasured.
SCRATCH: dict[str, dict[Any, Callable[..., int]]] = {
    "cuda": {aten.convolution: _convolution_copies},
    "cpu": {aten.convolution: _cpu_convolution},
}


# --- modules that are called many times ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """What the first call with some input shapes did."""

    above: int  # bytes over what was held before
    at: str
    flops: int
    output: Any  # shapes in place of tensors, as in the next
    lists_after: dict[str, list]


@dataclass(frozen=True)
class _Shape:
    """A tensor without its storage."""

    size: tuple[int, ...]
    dtype: torch.dtype


def _shapes(tree: Any) -> Any:
    return tree_map(lambda leaf: _Shape(tuple(leaf.shape), leaf.dtype) if _on_meta(leaf) else leaf, tree)


def _tensors(tree: Any) -> Any:
    def fresh(leaf: Any) -> Any:
        return torch.empty(leaf.size, dtype=leaf.dtype, device="meta") if isinstance(leaf, _Shape) else leaf

    return tree_map(fresh, tree)


@contextmanager
def _replayed(module: nn.Module, ledger: _Ledger) -> Iterator[None]:
    """Inside: a call of the module whose inputs have the shapes of an earlier one only repeats what that one needed.

    Lists among the named arguments are taken to be changed by the call, as the caches of Wan's autoencoder are.
    """
    forward, calls = module.forward, {}

    def replay(*args: Any, **kwargs: Any) -> Any:
        lists = {name: value for name, value in kwargs.items() if isinstance(value, list)}
        key = repr(_shapes((args, kwargs)))
        if key not in calls:
            before, peak, at, flops = ledger.live, ledger.peak, ledger.at, ledger.flops
            ledger.peak = before
            output = forward(*args, **kwargs)
            calls[key] = _Call(ledger.peak - before, ledger.at, ledger.flops - flops, _shapes(output), _shapes(lists))
            if peak > ledger.peak:
                ledger.peak, ledger.at = peak, at
            return output
        call = calls[key]
        ledger.reach(ledger.live + call.above, call.at)
        ledger.flops += call.flops
        output = _tensors(call.output)
        for name, value in lists.items():
            value[:] = _tensors(call.lists_after[name])
        return output

    module.forward = replay
    try:
        yield
    finally:
        del module.forward
