"""The base model of a training: its backbone, what it predicts, its training sets, and samples made with it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import DiffusionPipeline, ModelMixin
from torch import nn
from transformers import AutoConfig, AutoTokenizer

from prophy.assets import default_model
from prophy.backbones import backbone_of
from prophy.backbones.opening import first_line, part_opened
from prophy.backbones.pipeline import BranchSource, rules_of
from prophy.backbones.variants import variant_beside
from prophy.branch import ProPhyBranch, attach
from prophy.catalogue.families import facts_of
from prophy.catalogue.limits import ClipSize
from prophy.data.cache import TensorCache
from prophy.data.encode import encode_caption, encode_clip, readable
from prophy.data.examples import CONTENT, Examples
from prophy.data.folder import read_folder
from prophy.data.jobs import video_digest
from prophy.data.latents import is_worlds_cache
from prophy.files import sha256
from prophy.generation.generate import generate
from prophy.generation.identity import model_hash
from prophy.generation.pipelines import load
from prophy.generation.settings import GenerationSettings
from prophy.generation.words import check_prompt
from prophy.training.cached_examples import CachedExamples, FreshExamples, keep_empty_text, kept_empty_text
from prophy.training.devices import autocast
from prophy.training.encoders import encoders_sha256
from prophy.training.objectives import Objective, objective_for
from prophy.training.recipe import Recipe
from prophy.training.trainer import Sampler
from prophy.training.world_examples import open_worlds
from prophy.worlds import WorldSet

log = logging.getLogger(__name__)


def base_of(recipe: Recipe, given: str | None) -> str:
    """Where the base model is: as given, or as the recipe says.

    Raises:
        FileNotFoundError: a folder that holds no model.
    """
    base = given or recipe.base or str(default_model())
    local = Path(base).exists() or base.startswith((".", "/", "~"))
    if local and not (Path(base) / "model_index.json").is_file():
        raise FileNotFoundError(f"{base} holds no model (model_index.json is missing): give a diffusers folder")
    return base


def open_backbone(base: str, recipe: Recipe) -> tuple[ModelMixin, Objective]:
    """The backbone of a base model, or a new one beside its other parts, and what it predicts.

    Raises:
        ValueError: a base that no branch fits, or that cannot be read. One line.
    """
    try:
        index = DiffusionPipeline.load_config(base)
        family = backbone_of(index["transformer"][1])
        scheduler = getattr(diffusers, index["scheduler"][1]).from_pretrained(base, subfolder="scheduler")
        if recipe.scratch is None:
            dtype = getattr(torch, recipe.backbone_dtype)
            variant = variant_beside(Path(base) / "transformer")
            transformer = family.transformer_class.from_pretrained(
                base, subfolder="transformer", dtype=dtype, variant=variant
            )
        else:
            autoencoder = getattr(diffusers, index["vae"][1]).load_config(base, subfolder="vae")
            text_encoder = AutoConfig.from_pretrained(base, subfolder="text_encoder")
    except Exception as error:
        raise ValueError(f"cannot open the base model {base}: {first_line(error)}") from error
    if recipe.scratch is not None:
        if not hasattr(family, "from_scratch"):
            raise ValueError(f"{family.name} cannot be trained from scratch: use a recipe without scratch")
        torch.manual_seed(recipe.seed)
        transformer = family.from_scratch(autoencoder, text_encoder, **asdict(recipe.scratch))
    family.describe(transformer)  # refuses what no branch fits, whether one is trained or not
    return transformer, objective_for(scheduler)


def open_examples(
    folder: Path,
    base: str,
    clips: int | None = None,
    worlds: WorldSet | None = None,
    annotations: Path | None = None,
    device: torch.device | None = None,
    patch: int = 1,
) -> Examples:
    """The training set in a folder: the worlds' cache, or one that ``prophy cache fill`` made.

    Args:
        folder: of the cache.
        base: the base model, whose encoders it must have been made with.
        clips: make or extend a cache of so many clips of the worlds.
        worlds: which clips; see :func:`prophy.training.world_examples.open_worlds`.
        annotations: of the worlds' clips, to learn from instead of their masks.
        device: where new clips are encoded; default: the CPU.
        patch: latent cells on a side of a token, for the worlds' masks.

    Raises:
        FileNotFoundError: there is no cache, or a clip of the worlds was not annotated.
        ValueError: it was made with another model, or is damaged; or ``annotations`` of a cache that holds its own.
    """
    folder, marker = Path(folder), Path(folder) / "cache.json"
    if clips is not None or not marker.is_file() or is_worlds_cache(folder):
        return open_worlds(folder, Path(base), clips, worlds, annotations, device, patch)
    if annotations is not None:
        raise ValueError(f"{folder} holds its own targets: leave --annotations out, or give a cache of the worlds")
    cache = TensorCache(folder)
    return CachedExamples(cache, _empty_text(cache, base))


def open_folder(
    folder: Path, base: str, clip: ClipSize, fps: float, device: torch.device | None = None
) -> FreshExamples:
    """The clips of a folder with a table of captions, encoded as they are read, by the base model, which stays open.

    Args:
        folder: see :func:`prophy.data.folder.read_folder`.
        base: the base model, whose encoders are used.
        clip: size and length of the piece of each video.
        fps: frames a second of it.
        device: of the encoders; default: the accelerator, if there is one.

    Raises:
        ValueError: a folder without readable clips, or a size that the base cannot take.
        OSError: the table cannot be read.
    """
    from prophy.video import sample_frames

    reading = read_folder(folder).say_notes()
    for fault in reading.faults:
        log.warning("left out %s", fault)
    videos = [(record, record.video) for record in reading.records if record.video is not None]
    if not videos:
        raise ValueError(f"{folder} has no clip that can be read ({len(reading.faults)} faults)")
    pipeline = load(base, device=device)
    captions = readable(pipeline, {record.id: record.captions for record, _ in videos})
    videos = [(record, video) for record, video in videos if record.id in captions]
    _, frames, height, width = rules_of(pipeline).latent_shape(clip)
    wanted = clip.frames, fps, clip.height, clip.width
    clips = [
        _VideoFile(record.id, captions[record.id], record.labels or (), partial(sample_frames, video, *wanted))
        for record, video in videos
    ]
    about = json.dumps([wanted, [[one.id, one.captions, one.labels] for one in clips]])
    content = sha256("".join(video_digest(video) for _, video in videos))
    return FreshExamples(
        clips,
        partial(encode_clip, pipeline),
        partial(encode_caption, pipeline),
        (frames, height, width),
        f"folder {sha256(about)[:16]} of {len(clips)}, encoded by {model_hash(pipeline)}{CONTENT}{content[:16]}",
    )


@dataclass(frozen=True)
class _VideoFile:
    """See :class:`prophy.training.cached_examples.SourceClip`."""

    id: str
    captions: tuple[str, ...]
    labels: tuple[str, ...]
    read: Callable[[], np.ndarray]


def _empty_text(cache: TensorCache, base: str) -> torch.Tensor:
    """Embeddings of the empty prompt by the model that the cache was made with.

    Raises:
        ValueError: the base has another autoencoder or text encoder; or the embeddings are not kept beside the cache,
            and the base is another model.
    """
    encoders = encoders_sha256(base)
    if (kept := kept_empty_text(cache.folder, cache.recipe)) is not None:
        if encoders and kept.encoders and encoders != kept.encoders:
            raise ValueError(_OTHER_MODEL.format(cache.folder, base))
        if encoders != kept.encoders:
            log.warning("which files encoded %s, or those of %s, is not known: not compared", cache.folder, base)
        return kept.text_LD
    pipeline = load(base)
    if cache.recipe.get("model") != model_hash(pipeline):
        raise ValueError(_OTHER_MODEL.format(cache.folder, base))
    embedded = encode_caption(pipeline, "").cpu()
    keep_empty_text(cache.folder, cache.recipe, embedded, encoders)
    return embedded


_OTHER_MODEL = "{} was made with another model than {}: give that one with --model"


def check_samples(base: str, transformer: ModelMixin, settings: Sequence[GenerationSettings]) -> None:
    """Refuse clips that a base model cannot make before a training starts that shall make them on the way.

    Raises:
        ValueError: a prompt longer than it reads, or a size that it cannot make. One line.
    """
    index = DiffusionPipeline.load_config(base)
    vae = getattr(diffusers, index["vae"][1]).load_config(base, subfolder="vae")
    with part_opened(base):
        tokenizer = AutoTokenizer.from_pretrained(base, subfolder="tokenizer")
    facts = facts_of(type(transformer).__name__)  # the base may hold no transformer yet
    rules = facts.clip_rules(transformer.config, vae, tokenizer.model_max_length)
    for one in settings:
        rules.grid(one.frames, one.height, one.width)
        check_prompt(tokenizer, one.prompt, rules.text_tokens)


def sampler(base: str, settings: list[GenerationSettings], precision: str) -> Sampler:
    """What makes clips on the way: one run directory for each of ``settings``, with its contact sheet and routing.

    Args:
        base: the base model, whose other parts are used.
        settings: of each clip.
        precision: of the computation, as the recipe has it.
    """
    opened: list[DiffusionPipeline] = []

    def sample(transformer: nn.Module, branch: ProPhyBranch | None, folder: Path) -> None:
        device = next(transformer.parameters()).device
        if not opened:
            beside: BranchSource = False if branch is None else branch  # None would bring the base model's own
            opened.append(load(base, branch=beside, profile="all", device=device, transformer=transformer))
        pipeline = opened[0]
        if branch is not None and pipeline.attachment is None:
            pipeline.attachment = attach(transformer, branch)
        shutil.rmtree(folder, ignore_errors=True)  # of the same step, before the process was killed
        try:
            with autocast(device, getattr(torch, precision)):
                for number, wanted in enumerate(settings):
                    generate(pipeline, wanted).save(folder, f"{number:02d}")
        finally:
            if pipeline.attachment is not None:
                pipeline.attachment.detach()
                pipeline.attachment = None

    return sample
