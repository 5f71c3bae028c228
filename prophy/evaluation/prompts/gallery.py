"""The shipped runs: some of the fixed prompts, so that every phenomenon the embedded model knows is on show.

prophy evaluate gallery --out assets/gallery
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prophy.evaluation.prompts.fixed import FIXED_PROMPTS
from prophy.files import replace_folder
from prophy.generation.settings import GenerationSettings

if TYPE_CHECKING:
    from prophy.backbones.pipeline import ProPhyPipeline

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


def make_gallery(pipeline: ProPhyPipeline, out: Path) -> int:
    """Make every shipped run anew; ``out`` is replaced when all are made. Returns how many.

    Until then they are in a folder beside it, ``out`` with ``.new``, where a killed run goes on.
    Contact sheets are left out: they can be drawn from the run, and the repository holds only what cannot.

    Raises:
        GenerationError: the model cannot read a prompt, or that folder holds runs of another model.
    """
    from prophy.generation.resume import RunFolder, resumable  # with torch, which the page of shipped runs needs not

    out = Path(out)
    new = out.with_name(out.name + ".new")
    wanted = {SHIPPED[p.seed]: GenerationSettings(p.prompt, p.seed) for p in FIXED_PROMPTS if p.seed in SHIPPED}
    resumable(pipeline, wanted, RunFolder(new, pipeline, sheet=False), title="gallery")
    replace_folder(new, out)
    return len(wanted)
