"""The embedded model as it ships: weights rounded to fp16, no trace of the machine that trained it.

prophy tiny ship runs/base --work runs/tiny --out assets/prophy-tiny
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel

import prophy.backbones  # noqa: F401  registers the families
from prophy.backbones.opening import part_opened
from prophy.branch import ProPhyBranch
from prophy.catalogue.describe import BRANCH_FOLDER
from prophy.files import exclusive, replace_folder
from prophy.schema import read_json
from prophy.tiny.parts import load_parts, save_pipeline
from prophy.training.publish import publish


@exclusive("shipping", beside=True)
def ship(runs: Sequence[Path], model: Path, out: Path) -> Path:
    """Write a whole model: whole or not at all.

    Args:
        runs: folders of trainings; of a part that several trained the last one counts.
        model: whose autoencoder, tokenizer and text encoder it has, and what no run trained.
        out: the folder to write.

    Raises:
        FileNotFoundError: a part has not been trained.
        ValueError: a run that adapted the backbone, whose LoRA has no place in a shipped model; or another process
            ships there.
    """
    model, out = Path(model), Path(out)
    parts = load_parts(model)
    sources = {"transformer": model / "transformer", "branch": model / BRANCH_FOLDER}
    new = out.with_name(out.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        for number, run in enumerate(runs):
            published = publish(run, Path(scratch) / str(number))
            if (published / "pytorch_lora_weights.safetensors").exists():
                raise ValueError(f"{run} adapted the backbone by LoRA: ship runs that trained it whole, or not at all")
            if (published / "transformer").is_dir():
                sources["transformer"] = published / "transformer"
            if (published / "config.json").is_file():
                sources["branch"] = published
        if not sources["transformer"].is_dir():
            raise FileNotFoundError(
                f"{sources['transformer']} is missing: give a run of `prophy train --recipe tiny_transformer`"
            )
        with part_opened(sources["transformer"]):
            transformer = WanTransformer3DModel.from_pretrained(sources["transformer"], dtype=torch.float16)
        parts.vae.half()  # the text encoder is as it was trained: half precision but for the layers UMT5 keeps whole
        save_pipeline(new, parts, transformer)
        if sources["branch"].is_dir():
            with part_opened(sources["branch"]):
                branch = ProPhyBranch.from_pretrained(sources["branch"], dtype=torch.float32)
            branch.half().save_pretrained(new / BRANCH_FOLDER)
    for path in new.rglob("*.json"):
        config = read_json(path)
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    replace_folder(new, out)
    return out


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="prophy tiny ship", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs", type=Path, nargs="*", metavar="RUN", help="folder of a training; of several the last counts"
    )
    parser.add_argument("--work", type=Path, default=Path("runs/tiny"), help="folder of the stages' results")
    parser.add_argument("--out", type=Path, default=Path("assets/prophy-tiny"), help="folder to write")
    args = parser.parse_args(argv)
    ship(args.runs, args.work / "model", args.out)
