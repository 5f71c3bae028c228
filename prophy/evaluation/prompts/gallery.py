"""The shipped runs: some of the fixed prompts, so that every phenomenon the embedded model knows is on show.

prophy evaluate gallery --out assets/gallery
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tqdm import tqdm

from prophy.evaluation.prompts.fixed import FIXED_PROMPTS
from prophy.generation.generate import GenerationSettings, generate
from prophy.generation.pipelines import ProPhyWanPipeline
from prophy.training.checkpoints import replace_folder

#: run ids by the seed of the fixed prompt
SHIPPED = {
    101: "collision",
    103: "bounce",
    105: "sloshing",
    107: "smoke",
    109: "clay-press",
    111: "melting-ice",
    114: "log-fire",
    116: "explosion",
    117: "mirror",
    120: "refraction",
    121: "ball-and-candle",
    122: "smoke-and-ice",
    123: "tap-and-grenade",
}


def make_gallery(pipeline: ProPhyWanPipeline, out: Path) -> int:
    """Make every shipped run anew; ``out`` is replaced when all are made. Returns how many.

    Raises:
        GenerationError: the model cannot read a prompt.
    """
    out = Path(out)
    new = out.with_name(out.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    chosen = [fixed for fixed in FIXED_PROMPTS if fixed.seed in SHIPPED]
    for fixed in tqdm(chosen, "gallery", unit="run"):
        generate(pipeline, GenerationSettings(fixed.prompt, fixed.seed)).save(new, run_id=SHIPPED[fixed.seed])
    replace_folder(new, out)
    return len(chosen)
