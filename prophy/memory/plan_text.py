"""The printed plan."""

from __future__ import annotations

from prophy.memory.plan import GIB, Plan

_BAR = 28


def describe(made: Plan) -> str:
    """The plan as aligned plain text."""
    clip = made.clip
    lines = [
        f"{made.model}, {clip.width}×{clip.height}, {clip.frames} frames, {made.dtype}",
        "",
        f"{'part':<14} {'parameters':>11} {'size':>10}",
    ]
    for part in made.parts:
        name = part.name if part.count == 1 else f"{part.count} × {part.name}"
        lines.append(f"{name:<14} {part.parameters / 1e6:>9.0f} M {_gib(part.nbytes):>10}")
    total = sum(part.nbytes * part.count for part in made.parts)
    lines += [f"{'together':<14} {'':>11} {_gib(total):>10}   of host memory, in every profile but all", ""]
    scale = made.vram or max(entry.peak.total for entry in made.profiles)
    lines.append(f"{'profile':<19} {'peak':>9} {'weights':>9} {'the rest':>9}  {'during':<13} {'time':>9}")
    for entry in made.profiles:
        peak = entry.peak
        mark = "▸" if entry.profile == made.chosen else " "
        lines.append(
            f"{mark} {entry.profile!s:<17} {_gib(peak.total):>9} {_gib(peak.weights):>9} {_gib(peak.activations):>9}  "
            f"{peak.stage:<13} {entry.slow_down:>8.2f}×  {_bar(peak.total, scale, made)}"
        )
    if made.vram is not None:
        to_use = round(_BAR * (made.vram - made.reserve) / made.vram)
        lines.append(" " * (77 + max(0, to_use)) + f"┊ {_gib(made.vram - made.reserve)} to use")
    chosen = "none" if made.chosen is None else str(made.chosen)
    lines += [
        "",
        f"chosen   {chosen}: {made.reason}" if made.vram is not None else made.reason,
        f"assumed  {_gib(made.reserve)} for driver, libraries and fragmentation; times are estimates for "
        f"{made.rates.flops / 1e12:.0f} TFLOP/s sustained,",
        f"         {made.rates.pinned / 1e9:.0f} GB/s to the accelerator from pinned memory, "
        f"{made.rates.pageable / 1e9:.0f} GB/s from ordinary memory",
    ]
    return "\n".join(lines)


def _gib(nbytes: int) -> str:
    return f"{nbytes / GIB:.2f} GiB"


def _bar(nbytes: int, scale: int, made: Plan) -> str:
    """A bar as long as the need; with a known memory, a mark where that ends, and beyond it the bar breaks."""
    length = round(_BAR * nbytes / scale)
    if made.vram is None:
        return "█" * max(1, length)
    limit = round(_BAR * (made.vram - made.reserve) / made.vram)
    cells = "".join("█" if i < length else "·" for i in range(limit)) + "┊"
    return cells + ("█" * min(4, length - limit) + "»" if length > limit else "")
