"""The paper's figures 6, 7 and 8 for any checkpoint with a branch, as pictures and as numbers.

    prophy evaluate figures --model runs/tiny/model --work runs/tiny

Figure 6: do related phenomena get related semantic logits? Beside it stands the same table of the label vectors: the
relative loss builds part of the answer in. Figure 7: where each refinement expert acts. Figure 8: the refinement
router's logits inverted, beside two controls that change as much without meaning anything.

Shapes: n prompts, S semantic experts, E refinement experts, P phenomena, F video frames of H×W pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import DiffusionPipeline
from tqdm import tqdm

from prophy.branch import ProPhyBranch
from prophy.branch.refinement import RefinementExpertBlock
from prophy.data.encode import encode_captions
from prophy.evaluation.measures.metrics import bootstrap
from prophy.evaluation.results import FOLDER, Interval
from prophy.evaluation.results.figures import (
    INVERTED,
    RANDOM,
    SHUFFLED,
    CorrelationResult,
    ExpertMapsResult,
    InversionResult,
)
from prophy.generation.generate import Generation, generate
from prophy.generation.identity import branch_is_on, model_hash
from prophy.generation.settings import GenerationSettings
from prophy.phenomena import IDS, by_id
from prophy.routing.distance import pixel_difference, routing_difference
from prophy.routing.steering import Steering
from prophy.runs.overlay import overlay
from prophy.runs.pictures import evenly_spaced, resized, write_png
from prophy.runs.sheets import Block, Row, draw_sheet
from prophy.schema import read_json

RESAMPLES = 500
_SHOWN = 5  # frames of a clip on a picture


@dataclass(frozen=True)
class LabelledPrompt:
    """A prompt and the phenomena that it asks for, by id."""

    prompt: str
    phenomena: tuple[str, ...]


def read_prompts(path: Path) -> tuple[LabelledPrompt, ...]:
    """A JSON list of ``{"prompt": …, "phenomena": [ids]}``.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a list, or an unknown phenomenon.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is missing: give a JSON list of prompts with their phenomena")
    try:
        entries = read_json(Path(path))
        prompts = tuple(
            LabelledPrompt(str(entry["prompt"]), tuple(by_id(name).id for name in entry["phenomena"]))
            for entry in entries
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f'{path}: {error}: give a JSON list of {{"prompt": …, "phenomena": [ids]}}') from error
    if not prompts:
        raise ValueError(f"{path} holds no prompts")
    return prompts


# --- figure 6 ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def semantic_logits(pipeline: DiffusionPipeline, prompts: Sequence[str], batch: int = 16) -> np.ndarray:
    """The semantic router's logits of every prompt, float32 ``(n, S)``. Only the text encoder runs.

    Raises:
        ValueError: the pipeline has no branch.
    """
    branch = _branch_of(pipeline)
    parts = []
    for start in tqdm(range(0, len(prompts), batch), "semantic logits", mininterval=5, unit="batch"):
        text_BLD = encode_captions(pipeline, prompts[start : start + batch])
        parts.append(branch.semantic.route(text_BLD).float().cpu().numpy())
    return np.concatenate(parts)


def mean_correlations(values_nS: np.ndarray, shown_nP: np.ndarray) -> np.ndarray:
    """Pearson correlations of the phenomena's mean vectors, float64 ``(P, P)``.

    The mean over all prompts is taken off first: what every prompt shares says nothing about any phenomenon.
    A phenomenon that no prompt shows gets NaN.
    """
    centred = values_nS.astype(np.float64) - values_nS.mean(0, dtype=np.float64)
    count = shown_nP.sum(0).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        means_PS = shown_nP.T.astype(np.float64) @ centred / count[:, None]
        means_PS -= means_PS.mean(1, keepdims=True)
        unit_PS = means_PS / np.linalg.norm(means_PS, axis=1, keepdims=True)
    return np.clip(unit_PS @ unit_PS.T, -1, 1)


def correlate(
    logits_nS: np.ndarray, shown_nP: np.ndarray, model_sha256: str, resamples: int = RESAMPLES, seed: int = 0
) -> CorrelationResult:
    """Figure 6 from logits and labels.

    Raises:
        ValueError: fewer than two phenomena are shown.
    """
    present = np.flatnonzero(shown_nP.any(0))
    if len(present) < 2:
        raise ValueError("a correlation needs prompts of two phenomena at least: give more prompts")
    shown = shown_nP[:, present]
    logits, labels = mean_correlations(logits_nS, shown), mean_correlations(shown_nP.astype(np.float64), shown)
    rng, n = np.random.default_rng(seed), len(shown)
    draws = []
    for _ in range(resamples):
        rows = rng.integers(n, size=n)
        draws.append(mean_correlations(logits_nS[rows], shown[rows]))
    low, high = np.nanpercentile(np.array(draws), [2.5, 97.5], axis=0)
    off = ~np.eye(len(present), dtype=bool)
    table = tuple(
        tuple(Interval(float(logits[i, j]), float(low[i, j]), float(high[i, j]), n) for j in range(len(present)))
        for i in range(len(present))
    )
    varied = logits[off].std() > 1e-9 and labels[off].std() > 1e-9
    agreement = float(np.corrcoef(logits[off], labels[off])[0, 1]) if varied else float("nan")
    return CorrelationResult(
        tuple(IDS[i] for i in present), table, tuple(map(tuple, labels.tolist())), agreement, n, model_sha256
    )


def figure_6(pipeline: DiffusionPipeline, work: Path, prompts: Sequence[LabelledPrompt]) -> CorrelationResult:
    """Correlate the semantic logits; writes ``correlation.json`` under ``work/evaluation``."""
    shown = np.zeros((len(prompts), len(IDS)), bool)
    for row, prompt in enumerate(prompts):
        shown[row, [by_id(name).index for name in prompt.phenomena]] = True
    logits = semantic_logits(pipeline, [one.prompt for one in prompts])
    return correlate(logits, shown, model_hash(pipeline)).save(work)


# --- figure 7 ---------------------------------------------------------------------------------------------------------


def figure_7(
    pipeline: DiffusionPipeline, work: Path, settings: Sequence[GenerationSettings], step: int = -1
) -> ExpertMapsResult:
    """Where each expert acts, one picture a prompt; writes ``expert-maps.json`` and the pictures."""
    _branch_of(pipeline)
    folder = Path(work) / FOLDER
    pictures, shares = [], []
    for i, one in enumerate(tqdm(settings, "expert maps", unit="clip")):
        made = generate(pipeline, one)
        rows = [("frames", made.frames)]
        for expert in range(made.trace.num_experts):
            laid = overlay(made.frames, made.trace, "expert", index=expert, step=step, opacity=0.85)
            rows.append((f"expert {expert}", laid))
        pictures.append(_save(folder / f"expert-maps-{i}.png", one.prompt, rows))
        shares.append(tuple(map(tuple, made.trace.expert_shares(step).astype(float).tolist())))
    prompts = tuple(one.prompt for one in settings)
    return ExpertMapsResult(prompts, tuple(shares), tuple(pictures), model_hash(pipeline)).save(work)


# --- figure 8 ---------------------------------------------------------------------------------------------------------


@contextmanager
def transformed_router(block: RefinementExpertBlock, matrix_EE: torch.Tensor) -> Iterator[None]:
    """Multiply the refinement router's logits with a matrix, by its weights, while the context lasts.

    ``-I`` inverts them, as :class:`prophy.routing.steering.Steering` does.
    """
    weight, bias = block.router.weight, block.router.bias
    before = weight.detach().clone(), bias.detach().clone()
    matrix = matrix_EE.to(weight.device, torch.float32)
    with torch.no_grad():
        weight.copy_(matrix @ before[0].float())
        bias.copy_(matrix @ before[1].float())
    try:
        yield
    finally:
        with torch.no_grad():
            weight.copy_(before[0])
            bias.copy_(before[1])


def random_change(experts: int, seed: int) -> torch.Tensor:
    """``I + 2Q`` with a random orthogonal Q: every token's logits change by as much as inversion changes them, 2‖l‖."""
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(experts, experts, generator=generator, dtype=torch.float64))
    return (torch.eye(experts, dtype=torch.float64) + 2 * q * r.diagonal().sign()).float()


def shuffle(experts: int, seed: int) -> torch.Tensor:
    """A permutation that leaves no expert in its place: the logits keep their norm and their sharpness."""
    order = np.random.default_rng(seed).permutation(experts)  # one round through all of them
    matrix = torch.zeros(experts, experts)
    matrix[torch.from_numpy(order), torch.from_numpy(np.roll(order, 1))] = 1
    return matrix


def figure_8(pipeline: DiffusionPipeline, work: Path, settings: Sequence[GenerationSettings]) -> InversionResult:
    """Invert the router, and change it as much at random; writes ``inversion.json`` and a picture a prompt."""
    branch = _branch_of(pipeline)
    folder, experts = Path(work) / FOLDER, branch.config.num_refinement_experts
    pixels: dict[str, list[float]] = {INVERTED: [], RANDOM: [], SHUFFLED: []}
    routing: dict[str, list[float]] = {name: [] for name in pixels}
    pictures = []
    for i, one in enumerate(tqdm(settings, "expert inversion", unit="prompt")):
        plain = generate(pipeline, one)
        changed: dict[str, Generation] = {INVERTED: generate(pipeline, _inverted(one, experts))}
        for name, matrix in ((RANDOM, random_change(experts, one.seed)), (SHUFFLED, shuffle(experts, one.seed))):
            with transformed_router(branch.refinement, matrix):
                changed[name] = generate(pipeline, one)
        for name, made in changed.items():
            pixels[name].append(float(pixel_difference(plain.frames, made.frames).mean()))
            routing[name].append(float(np.mean(routing_difference(plain.routing, made.routing))))
        rows = [("as it is", plain.frames), *((name, made.frames) for name, made in changed.items())]
        pictures.append(_save(folder / f"inversion-{i}.png", one.prompt, rows))
    table = {name: np.array(values) for name, values in pixels.items()}
    return InversionResult(
        pixels={name: bootstrap(values) for name, values in table.items()},
        routing={name: bootstrap(np.array(values)) for name, values in routing.items()},
        inverted_minus={name: bootstrap(table[INVERTED] - table[name]) for name in (RANDOM, SHUFFLED)},
        prompts=tuple(one.prompt for one in settings),
        pictures=tuple(pictures),
        model_sha256=model_hash(pipeline),
    ).save(work)


def _inverted(settings: GenerationSettings, experts: int) -> GenerationSettings:
    fields = {name: getattr(settings, name) for name in GenerationSettings.__dataclass_fields__}
    return GenerationSettings(**{**fields, "steering": Steering(refinement=dict.fromkeys(range(experts), -1.0))})


def _branch_of(pipeline: DiffusionPipeline) -> ProPhyBranch:
    if not branch_is_on(pipeline):
        raise ValueError("the figures show a branch: give a model with a branch/ folder, or --branch")
    return pipeline.branch


def _save(path: Path, title: str, rows: Sequence[tuple[str, np.ndarray]], tile: int = 128) -> str:
    """A picture of one row of frames for each ``(name, uint8 (F, H, W, 3))``; returns the file's name."""
    shown = [Row([*resized(frames[evenly_spaced(len(frames), _SHOWN)], tile)], name) for name, frames in rows]
    write_png(path, draw_sheet([Block(shown, [title])]))
    return path.name
