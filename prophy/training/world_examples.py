"""The synthetic worlds' cache as a training set.

Shapes: L text length, D text width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoModel
from transformers import AutoTokenizer, PreTrainedTokenizerBase, UMT5EncoderModel

from prophy.annotation.pipeline import CLIPS, RECIPE, ClipInputs
from prophy.annotation.record import TARGETS
from prophy.backbones.opening import open_text_encoder, part_opened
from prophy.backbones.variants import variant_beside
from prophy.data.encode import empty_prompt, encode_text
from prophy.data.examples import CONTENT, DRAWN, TEXT, Example, Examples
from prophy.data.jobs import Geometry, Job, jobs_of_worlds
from prophy.data.latents import LatentCache, cache_note, open_cache
from prophy.files import file_sha256, sha256
from prophy.routing.targets import TokenTargets
from prophy.schema import read_object
from prophy.training.run_state import weights_digest
from prophy.worlds import Stage, WorldSet


class WorldExamples(Examples):
    """The clips of a :class:`prophy.data.latents.LatentCache`; the captions of a batch are encoded as it is read.

    Args:
        cache: opened.
        encoder: the text encoder that the captions' tokens belong to.
        fingerprint: see :class:`prophy.data.examples.Examples`; empty where nothing is resumed.
        targets: of each clip, a file of :class:`prophy.routing.targets.TokenTargets`; default: the worlds' own masks.
    """

    def __init__(
        self,
        cache: LatentCache,
        encoder: UMT5EncoderModel,
        fingerprint: str = "",
        targets: Sequence[Path] | None = None,
    ) -> None:
        self.fingerprint = fingerprint
        self._targets = targets
        self._cache, self._encoder = cache, encoder.eval().requires_grad_(False)
        (self.empty_text_LD,) = self._encode(empty_prompt(cache.ids.shape[2])[None])

    def __len__(self) -> int:
        return len(self._cache)

    def latent_size(self, index: int) -> tuple[int, int, int]:
        return self._cache.latents.shape[2:]

    def example(self, index: int, wording: int) -> Example:
        return self.read([index], [wording])[0]

    def read(self, indices: Sequence[int], wordings: Sequence[int]) -> list[Example]:
        cache, rows = self._cache, np.asarray(indices)
        ids_BL = cache.ids[rows, np.asarray(wordings) % cache.ids.shape[1]].astype(np.int64)
        texts = self._encode(torch.from_numpy(ids_BL))
        if self._targets is None:
            targets = cache.targets(rows)
        else:
            targets = [_read(self._targets[index]) for index in indices]
        return [
            Example(f"world {index}", torch.from_numpy(np.array(cache.latents[index])), *parts)
            for index, *parts in zip(indices, texts, cache.labels(rows), targets, strict=True)
        ]

    @torch.no_grad()
    def _encode(self, ids_BL: torch.Tensor) -> torch.Tensor:
        """Embeddings ``(B, L, D)``; past the longest caption all are zero, and not computed."""
        longest = int(ids_BL.ne(0).sum(1).max())
        text_BLD = encode_text(self._encoder, ids_BL[:, :longest].to(self._encoder.device)).cpu()
        return torch.nn.functional.pad(text_BLD, (0, 0, 0, ids_BL.shape[1] - longest))


def _read(path: Path) -> torch.Tensor:
    return torch.from_numpy(TokenTargets.load(path).values)


def open_worlds(
    folder: Path,
    base: Path,
    clips: int | None = None,
    worlds: WorldSet | None = None,
    annotations: Path | None = None,
    device: torch.device | None = None,
    patch: int = 1,
) -> WorldExamples:
    """Open the cache of the worlds in ``folder``, encoded by the base model in ``base``.

    Args:
        folder: of the cache.
        base: the model whose autoencoder and text encoder are used.
        clips: how many; makes or extends the cache. Default: those that are there.
        worlds: which clips; default: as they are there, else those of the embedded model.
        annotations: what ``prophy annotate --data worlds`` filled for these clips; default: the masks are the targets.
        device: where clips that are not there yet are encoded; default: the CPU.
        patch: latent cells on a side of a token.

    Raises:
        FileNotFoundError: there is no cache, and ``clips`` was not given; or a clip that was not annotated.
        ValueError: the cache was made by another model or of other clips, other clips were annotated, or a part of the
            base is damaged.
    """
    folder, base = Path(folder), Path(base)
    if (held := cache_note(folder)) is not None:
        worlds, clips = worlds or held.worlds, held.count if clips is None else clips
    elif clips is None:
        raise FileNotFoundError(
            f"{folder} holds no cache (cache.json is missing): encode clips into it with --worlds N"
        )
    worlds = worlds or WorldSet()
    with part_opened(base / "vae"):
        variant = variant_beside(base / "vae")
        vae = AutoModel.from_pretrained(str(base / "vae"), dtype=torch.float32, variant=variant)
    vae.eval().requires_grad_(False).to(device or "cpu")
    with part_opened(base / "tokenizer"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base / "tokenizer")
    encoder = open_text_encoder(base / "text_encoder", torch.float32)
    cache = open_cache(folder, vae, tokenizer, clips, worlds, patch)
    note = cache_note(folder)
    assert note is not None, "open_cache has written it"
    fingerprint, content = f"worlds {note.made_by} {worlds.split} {clips} {','.join(worlds.phenomena)}", cache.content()
    if worlds.stage != Stage() or not worlds.lawful:
        fingerprint += f", {worlds.stage}{'' if worlds.lawful else ', unlawful'}"
    if worlds.grammar != WorldSet.grammar:
        fingerprint += f", {worlds.grammar}"
    text = f"{TEXT}{weights_digest(encoder)[:16]}"
    if note.drawn is not None:
        text += f"{DRAWN}{note.drawn.pictures}"
    if annotations is None:
        return WorldExamples(cache, encoder, f"{fingerprint}{CONTENT}{content[:16]}{text}")
    jobs = jobs_of_worlds(clips, worlds.split, worlds.phenomena, stage=worlds.stage)
    geometry = Geometry.of_worlds(worlds.stage, worlds.stage.height // cache.grid.height)
    recipe, targets = _annotated(Path(annotations), jobs, worlds.split, geometry)
    content = sha256(content + "".join(map(file_sha256, targets)))
    return WorldExamples(cache, encoder, f"{fingerprint}, targets {recipe}{CONTENT}{content[:16]}{text}", targets)


def _fit(job: Job, folder: Path) -> bool:
    """Whether a clip's annotation is of what the world shows; older releases noted its caption and phenomena only."""
    now, then = ClipInputs.of(job), ClipInputs.read(folder)
    return now.targets_fit(then) or (then is not None and then == replace(now, content="", drawn=""))


def _annotated(folder: Path, jobs: Sequence[Job], split: str, geometry: Geometry) -> tuple[str, list[Path]]:
    """A digest of the recipe of annotations, and each clip's targets."""
    recipe = folder / RECIPE
    if not recipe.is_file():
        raise FileNotFoundError(f"{folder} holds no annotations ({RECIPE} is missing)")
    about = read_object(recipe, "annotate the clips again")
    if Geometry.of_recipe(about, recipe) != geometry:
        raise ValueError(f"{folder} holds annotations of other clips: make them with prophy annotate --data worlds")
    targets = [folder / CLIPS / job.folder / TARGETS for job in jobs]
    missing = [job.id for job, path in zip(jobs, targets, strict=True) if not path.exists()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} of {len(jobs)} clips, such as {missing[0]}: "
            f"prophy annotate --data worlds --split {split} --clips {len(jobs)} --out {folder} --vlm ID_OR_DIR"
        )
    if others := [job.id for job, path in zip(jobs, targets, strict=True) if not _fit(job, path.parent)]:
        raise ValueError(
            f"{folder} holds annotations of {len(others)} other clips under these names, such as {others[0]}: annotate "
            "with the cache's own --phenomena, --size and --fps"
        )
    return sha256(json.dumps(about, sort_keys=True))[:16], targets
