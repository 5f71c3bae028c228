"""The embedded model as it ships: weights rounded to fp16, no trace of the machine that trained it.

prophy tiny ship --work runs/tiny --out assets/prophy-tiny
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel

import prophy.backbones  # noqa: F401  registers the families
from prophy.branch import ProPhyBranch
from prophy.catalogue.describe import BRANCH_FOLDER
from prophy.tiny.transformer import load_parts, save_pipeline
from prophy.training.checkpoints import replace_folder


def ship(work: Path, out: Path) -> Path:
    """Write the trained parts of ``work/model``, the branch too if there is one, to ``out``: whole or not at all.

    Raises:
        FileNotFoundError: a part has not been trained.
    """
    work, out = Path(work), Path(out)
    parts = load_parts(work)
    source = work / "model"
    if not (source / "transformer").exists():
        raise FileNotFoundError(f"{source / 'transformer'} is missing: run `prophy tiny transformer` first")
    transformer = WanTransformer3DModel.from_pretrained(source / "transformer", dtype=torch.float16)
    parts.vae.half()  # the text encoder is as it was trained: half precision but for the layers UMT5 keeps whole
    new = out.with_name(out.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    save_pipeline(new, parts, transformer)
    if (source / BRANCH_FOLDER).exists():
        branch = ProPhyBranch.from_pretrained(source / BRANCH_FOLDER, dtype=torch.float32)
        branch.half().save_pretrained(new / BRANCH_FOLDER)
    for path in new.rglob("*.json"):
        config = json.loads(path.read_text())
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    replace_folder(new, out)
    return out


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="prophy tiny ship", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/tiny"), help="folder of checkpoints and results")
    parser.add_argument("--out", type=Path, default=Path("assets/prophy-tiny"), help="folder to write")
    args = parser.parse_args(argv)
    ship(args.work, args.out)
