"""Run with: python benchmarks/plan.py

How close ``prophy plan`` comes to the memory that a stage really takes: models of middling size with random weights run
on the CPU, and the highest resident size of the process (``VmHWM``), less what it was before the model existed, is
compared with weights and footprint as predicted on the meta device. Writes the table to plan.md beside it. Linux only.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

WAN = {"num_attention_heads": 12, "attention_head_dim": 64, "ffn_dim": 3072, "num_layers": 3, "text_dim": 512}
COGVIDEOX = {
    "num_attention_heads": 12,
    "attention_head_dim": 64,
    "num_layers": 3,
    "text_embed_dim": 512,
    "time_embed_dim": 128,
    "sample_width": 48,
    "sample_height": 32,
    "use_rotary_positional_embeddings": True,
}
TEXT = {
    "vocab_size": 8192,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 8,
    "num_heads": 8,
    "feed_forward_proj": "gated-gelu",
    "is_encoder_decoder": False,
}
MODELS: dict[str, dict[str, tuple[str, str, dict[str, Any]]]] = {
    "wan": {
        "transformer": ("diffusers", "WanTransformer3DModel", WAN),
        "vae": ("diffusers", "AutoencoderKLWan", {"base_dim": 32}),
        "text_encoder": ("transformers", "UMT5EncoderModel", TEXT),
    },
    "cogvideox": {
        "transformer": ("diffusers", "CogVideoXTransformer3DModel", COGVIDEOX),
        "vae": (
            "diffusers",
            "AutoencoderKLCogVideoX",
            {
                "block_out_channels": [32, 64, 64, 128],
                "layers_per_block": 2,
                "down_block_types": ["CogVideoXDownBlock3D"] * 4,
                "up_block_types": ["CogVideoXUpBlock3D"] * 4,
                "sample_height": 128,
                "sample_width": 192,
            },
        ),
        "text_encoder": ("transformers", "T5EncoderModel", TEXT),
    },
}


@dataclass(frozen=True)
class Case:
    """One stage of one model at one size (width, height, frames)."""

    model: str
    stage: str
    dtype: str
    size: tuple[int, int, int]
    tiling: bool = False


CASES = {
    "wan branch, float32": Case("wan", "branch", "float32", (256, 224, 33)),
    "wan branch, bfloat16": Case("wan", "branch", "bfloat16", (256, 224, 33)),
    "wan denoising, float32": Case("wan", "denoising", "float32", (256, 224, 33)),
    "wan denoising, bfloat16": Case("wan", "denoising", "bfloat16", (256, 224, 33)),
    "cogvideox branch, float32": Case("cogvideox", "branch", "float32", (192, 160, 33)),
    "cogvideox denoising, float32": Case("cogvideox", "denoising", "float32", (192, 160, 33)),
    "cogvideox denoising, bfloat16": Case("cogvideox", "denoising", "bfloat16", (192, 160, 33)),
    "wan text encoding, float32": Case("wan", "text encoding", "float32", (64, 64, 17)),
    "wan decoding, float32": Case("wan", "decoding", "float32", (288, 96, 5)),
    "wan decoding in tiles, float32": Case("wan", "decoding", "float32", (288, 96, 5), tiling=True),
    "wan decoding, float32, larger": Case("wan", "decoding", "float32", (288, 160, 5)),
    "wan decoding, bfloat16": Case("wan", "decoding", "bfloat16", (288, 96, 5)),
    "cogvideox decoding, float32": Case("cogvideox", "decoding", "float32", (160, 112, 9)),
    "cogvideox decoding in tiles, float32": Case("cogvideox", "decoding", "float32", (160, 112, 9), tiling=True),
}


TINY: dict[str, dict[str, dict[str, Any]]] = {
    "wan": {
        "transformer": {"num_attention_heads": 1, "ffn_dim": 64, "num_layers": 1},
        "vae": {"base_dim": 8},
        "text_encoder": {"num_layers": 1},
    },
    "cogvideox": {
        "transformer": {"num_attention_heads": 1, "num_layers": 1},
        "vae": {"layers_per_block": 1, "block_out_channels": [32, 32, 32, 32]},
        "text_encoder": {"num_layers": 1},
    },
}


def write_model(folder: Path, model: str, changes: dict[str, dict[str, Any]] | None = None) -> None:
    """A diffusers folder with configurations and no weights."""
    index = {name: [library, cls] for name, (library, cls, _) in MODELS[model].items()}
    (folder / "model_index.json").write_text(json.dumps(index))
    for name, (_, _, config) in MODELS[model].items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps({**config, **(changes or {}).get(name, {})}))


def measure(case: Case) -> dict[str, float]:
    """Predict on the meta device, then run on the CPU in this process. Bytes; seconds of the run."""
    import torch

    from prophy.catalogue.limits import ClipSize
    from prophy.memory.footprint import footprint
    from prophy.memory.profiles import Stage
    from prophy.memory.stages import computations, open_parts

    torch.set_grad_enabled(False)
    with tempfile.TemporaryDirectory() as name:
        write_model(Path(name), case.model)
        parts = open_parts(Path(name), dtype=getattr(torch, case.dtype))
    clip, stage = ClipSize(*case.size), Stage(case.stage)
    module = {
        Stage.TEXT: parts.text_encoder,
        Stage.BRANCH: parts.branch,
        Stage.DENOISING: parts.transformer,
        Stage.DECODING: parts.vae,
    }[stage]
    counted = footprint(computations(parts, clip, "meta", case.tiling)[stage], device="cpu")
    warm_up(case, stage)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the highest size starts anew from the present one
    before = resident("VmRSS")
    fill(module)
    started = time.perf_counter()
    computations(parts, clip, "cpu", case.tiling)[stage]()
    seconds = time.perf_counter() - started
    predicted = sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
    return {
        "weights": predicted,
        "activations": counted.peak,
        "predicted": predicted + counted.peak,
        "measured": resident("VmHWM") - before,
        "seconds": seconds,
    }


def warm_up(case: Case, stage) -> None:
    """Run the same code on a tiny model: what the libraries keep for good after a first call is none of the model's."""
    import torch

    from prophy.catalogue.limits import ClipSize
    from prophy.memory.stages import computations, open_parts

    with tempfile.TemporaryDirectory() as name:
        write_model(Path(name), case.model, TINY[case.model])
        parts = open_parts(Path(name), dtype=getattr(torch, case.dtype))
    for module in (parts.text_encoder, parts.transformer, parts.branch, parts.vae):
        fill(module)
    computations(parts, ClipSize(64, 64, 9), "cpu")[stage]()


def fill(module) -> None:
    """Give a module of the meta device memory on the CPU, and touch it."""
    module.to_empty(device="cpu")
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.fill_(0.01)


def resident(field: str) -> int:
    """Bytes of a line of ``/proc/self/status``: VmRSS now, VmHWM at its highest."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise ValueError(f"no {field} in /proc/self/status: this needs Linux")


def run(names: list[str]) -> dict[str, dict[str, float]]:
    """Measure some cases in a fresh process whose freed memory goes back to the system at once."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, __file__, "--only", *names]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def table(results: dict[str, dict[str, float]]) -> str:
    """The comparison in Markdown."""
    import torch

    lines = [
        "# Memory: predicted and measured",
        "",
        f"`python benchmarks/plan.py`, {datetime.now(UTC):%Y-%m-%d}. MB of 10^6 bytes, one thread.",
        f"Python {platform.python_version()}, torch {torch.__version__}, {platform.machine()}, CPU.",
        "",
        f"Target: within 10 %. Largest error: {max(abs(error(row)) for row in results.values()):.1%}.",
        "",
        "| stage | size | weights | activations, predicted | peak, predicted | peak, measured | error |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for name, row in results.items():
        size = "×".join(map(str, CASES[name].size))
        values = " | ".join(f"{row[key] / 1e6:.0f}" for key in ("weights", "activations", "predicted", "measured"))
        lines.append(f"| {name} | {size} | {values} | {error(row):+.1%} |")
    return "\n".join(lines) + "\n"


def error(row: dict[str, float]) -> float:
    """Of the prediction, as a share of the measured."""
    return row["predicted"] / row["measured"] - 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="CASE", help="measure these here and print JSON")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="where the table goes")
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps({name: measure(CASES[name]) for name in arguments.only}))
        return
    results = {}
    for name in CASES:
        results |= run([name])
        print(f"{name}: {error(results[name]):+.1%}", flush=True)
    arguments.out.write_text(table(results))


if __name__ == "__main__":
    main()
