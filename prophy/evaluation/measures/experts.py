"""What each refinement expert does: on which phenomena its weight lies, on clips that were not trained on.

    prophy evaluate experts --model runs/tiny/model --work runs/tiny

Written beside the branch as ``experts.json``, by which the page names an expert ("melting 71 %"). Ours.

Shapes: n clips, N tokens, P phenomena, E refinement experts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prophy.backbones.pipeline import ProPhyPipeline
from prophy.catalogue.experts import FILE, ExpertShares
from prophy.evaluation.measures.flow_loss import held_out_cache
from prophy.evaluation.measures.localisation import Truth, read_routing, truth_of
from prophy.evaluation.results.documents import write_json
from prophy.generation.identity import branch_is_on, model_hash, origin_hash
from prophy.phenomena import IDS
from prophy.worlds import WorldSet

CLIPS = 128
NOISE = 0.5  #: where the picture is half there


def evaluate_experts(
    pipeline: ProPhyPipeline,
    work: Path,
    branch: Path,
    clips: int = CLIPS,
    batch: int = 16,
    noise: float = NOISE,
    worlds: WorldSet = WorldSet(),
) -> ExpertShares:
    """Measure the experts of a branch; writes ``experts.json`` into its folder.

    Args:
        pipeline: with the branch.
        work: folder of caches.
        branch: the branch's folder.
        clips: held-out clips.
        batch: clips at a time.
        noise: level, 0 to 1.
        worlds: that the held-out clips are of, and whose phenomena the branch was taught; any split.

    Raises:
        ValueError: the pipeline has no branch.
        FileNotFoundError: no such folder.
    """
    if not branch_is_on(pipeline):
        raise ValueError("this measures the experts of a branch: give a model with a branch/ folder, or --branch")
    if not Path(branch).is_dir():
        raise FileNotFoundError(f"{branch} is no folder of this machine: give one with --branch")
    cache = held_out_cache(pipeline, work, clips, worlds)
    routing = read_routing(pipeline, cache, noise, batch)
    shares_EP, used_E = shares_of(routing.probs_nNE, truth_of(cache))
    measured = ExpertShares(
        shares=tuple({name: round(float(row[IDS.index(name)]), 4) for name in worlds.phenomena} for row in shares_EP),
        used=tuple(round(float(share), 4) for share in used_E),
        learnt=worlds.phenomena,
        model_sha256=tuple(dict.fromkeys((model_hash(pipeline), origin_hash(pipeline)))),
        clips=len(cache),
        grammar=worlds.grammar,
        size=worlds.stage.size,
        fps=worlds.stage.fps,
    )
    write_json(Path(branch) / FILE, measured)
    return measured


def shares_of(probs_nNE: np.ndarray, truth: Truth) -> tuple[np.ndarray, np.ndarray]:
    """Of each expert's weight where anything acts, the share on each phenomenon, ``(E, P)``; and its use, ``(E,)``."""
    acts_nNP = truth.cover_nNP > 0.5
    active_nNE = probs_nNE * acts_nNP.any(2, keepdims=True)
    on_EP = np.einsum("bne,bnp->ep", active_nNE, acts_nNP)
    total_E = active_nNE.sum((0, 1))
    return on_EP / np.maximum(total_E, 1e-12)[:, None], probs_nNE.mean((0, 1))
