"""The latent cache: every training clip encoded once, with its text tokens and per-token masks.

Stored as plain ``.npy`` arrays beside a JSON that says what made them and what they must look like; a cache made by
another autoencoder, tokenizer or scope is refused, not mixed in.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ModelMixin
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from prophy.arrays import read_npy
from prophy.backbones.autoencoder import channels_last, normalise, scale_of, to_pixels
from prophy.data.ahead import made_ahead
from prophy.data.cache import Problem
from prophy.files import exclusive, file_sha256, visible, write_text
from prophy.generation.words import too_long
from prophy.grid import TokenGrid
from prophy.phenomena import IDS, by_id
from prophy.schema import AtLeastOne, check_fields, read_object
from prophy.worlds import Drawn, Stage, WorldSet, refuse_redrawn

CAPTIONS = 4  #: wordings kept for each clip
MARKER = "cache.json"
_LAYOUT = {"latents": (np.float16, 5), "ids": (np.int16, 3), "masks": (np.uint8, 3), "phenomena": (np.int8, 2)}
ARRAYS = tuple(_LAYOUT)  #: each in a file of its own
_LOOKED_AT = 4  # clips that verify_worlds renders again

#: what a cache was made with -> what a refusal calls it
WORDS = {
    "made_by": "weights",
    "phenomena": "phenomena",
    "split": "clips",
    "stage": "sizes",
    "lawful": "clocks",
    "grammar": "captions",
}


@dataclass(frozen=True)
class LatentCache:
    """Encoded clips.

    Attributes:
        latents: float16 ``(n, C, T, H, W)``, normalised.
        ids: int16 ``(n, CAPTIONS, L)``: token ids of several wordings of each clip's caption.
        masks: uint8 ``(n, 2, T·H·W)``: share of each cell covered by the first and second phenomenon, times 255.
        phenomena: int8 ``(n, 2)``: which phenomena those are, -1 for none.
        patch: cells on a side of a token.
    """

    latents: np.ndarray
    ids: np.ndarray
    masks: np.ndarray
    phenomena: np.ndarray

    patch: int = 1

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def grid(self) -> TokenGrid:
        """The tokens of a clip."""
        frames, height, width = self.latents.shape[2:]
        return TokenGrid(frames, height // self.patch, width // self.patch)

    def labels(self, rows: np.ndarray) -> torch.Tensor:
        """Multi-hot phenomena of clips ``rows``, float32 ``(B, 17)``."""
        labels = torch.zeros(len(rows), len(IDS) + 1)
        labels.scatter_(1, torch.from_numpy(self.phenomena[rows].astype(np.int64)) % (len(IDS) + 1), 1.0)
        return labels[:, :-1]

    def targets(self, rows: np.ndarray) -> torch.Tensor:
        """Per-token phenomenon maps of clips ``rows``, float32 ``(B, N, 17)`` in [0, 1]."""
        maps = torch.zeros(len(rows), self.grid.num_tokens, len(IDS))
        for b, row in enumerate(rows):
            for slot in range(2):
                if (index := int(self.phenomena[row, slot])) >= 0:
                    maps[b, :, index] = self._of_tokens(self.masks[row, slot])
        return maps

    def _of_tokens(self, mask: np.ndarray) -> torch.Tensor:
        """The mean over each token's cells of what was stored of them."""
        share_THW = torch.from_numpy(mask.astype(np.float32) / 255).view(self.latents.shape[2:])
        return torch.nn.functional.avg_pool2d(share_THW, self.patch).flatten()

    def content(self) -> str:
        """A digest of captions, masks and phenomena. Latents differ in their last bit from machine to machine."""
        digest = hashlib.sha256()
        for array in (self.ids, self.masks, self.phenomena):
            for start in range(0, len(array), 1024):
                digest.update(array[start : start + 1024].tobytes())
        return digest.hexdigest()


def is_worlds_cache(folder: Path) -> bool:
    """Whether a folder's ``cache.json`` is that of a cache of the worlds.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    marker = Path(folder) / MARKER
    if not marker.is_file():
        raise FileNotFoundError(f"{folder} holds no cache ({MARKER} is missing)")
    return "made_by" in read_object(marker, "restore it or fill another folder")


def _alike(scale: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Statistics that are measured twice differ in their last digits."""
    return len(scale) == len(other) and bool(np.allclose(scale, other, rtol=1e-3, atol=1e-3))


def grid_of(stage: Stage, vae: ModelMixin) -> TokenGrid:
    """The latent cells of a clip, each as large as the autoencoder makes it."""
    cell = vae.config.scale_factor_spatial or 8
    return TokenGrid.from_video(stage.frames, stage.height, stage.width, cell)


def _render(grid: TokenGrid, worlds: WorldSet, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    clip = worlds.clip(seed)
    masks = np.zeros((2, grid.num_tokens), np.uint8)
    shown = len(clip.masks)
    masks[:shown] = np.round(grid.pool_masks(np.stack(list(clip.masks.values()))) * 255)
    indices = np.full(2, -1, np.int8)
    indices[:shown] = [by_id(phenomenon).index for phenomenon in clip.masks]
    return clip.frames, masks, indices


@dataclass(frozen=True)
class CacheNote:
    """What ``cache.json`` says of a cache of the worlds.

    Attributes:
        worlds: which clips.
        made_by: digest of the autoencoder's encoder and of the tokenizer.
        count: of clips.
        sha256: of each array's file; empty where an older release noted none.
        scale: see :func:`prophy.backbones.autoencoder.scale_of`; empty where an older release noted none.
        drawn: what the worlds drew; None where an older release noted nothing.

    Raises:
        ValueError: a field that is not what it says it is.
    """

    worlds: WorldSet
    made_by: str
    count: AtLeastOne
    sha256: dict[str, str]
    scale: tuple[float, ...] = ()
    drawn: Drawn | None = None

    def __post_init__(self) -> None:
        check_fields(self)


def cache_note(folder: Path) -> CacheNote | None:
    """What the cache in a folder was made with; None if there is none.

    Raises:
        ValueError: its description is damaged, or it is a cache of other clips.
    """
    marker = Path(folder) / MARKER
    if not marker.is_file():
        return None
    about = read_object(marker, "restore it or fill another folder")
    if "made_by" not in about:
        raise ValueError(f"{folder} holds a cache of other clips: leave --worlds out, or choose another folder")
    try:
        worlds = WorldSet.from_record(about)
        scale = tuple(map(float, about.get("scale", ())))
        digests = dict(about.get("sha256", {}))
        drawn = Drawn.from_record(about.get("drawn"))
        return CacheNote(worlds, about["made_by"], about["count"], digests, scale, drawn)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{marker} does not describe a cache of the worlds ({error}): make another") from None


def _digest(vae: ModelMixin, tokenizer: PreTrainedTokenizerBase) -> str:
    """Of what latents and token ids depend on: a decoder that learnt on leaves them as they are."""
    digest = hashlib.sha256(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode())
    for name, tensor in vae.state_dict().items():  # as they ship: rounded weights are the same autoencoder
        if not name.startswith(("decoder.", "post_quant_conv.")):
            digest.update(name.encode() + tensor.half().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def open_cache(
    folder: Path,
    vae: ModelMixin,
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    worlds: WorldSet = WorldSet(),
    patch: int = 1,
) -> LatentCache:
    """Open the cache of clips ``0 .. count-1``, making or extending it first.

    Args:
        folder: of the cache.
        vae: encodes the clips, on its device; beside an accelerator all cores render them.
        tokenizer: of their captions.
        count: of clips.
        worlds: which clips.
        patch: latent cells on a side of a token, by which the cache is read; its files hold cells.

    Raises:
        ValueError: the folder holds a cache made otherwise, of clips that the worlds make otherwise now, or damaged;
            another process fills it; or a size that autoencoder or tokens cannot take.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    grid = grid_of(worlds.stage, vae)
    if grid.height % patch or grid.width % patch:
        raise ValueError(
            f"{worlds.stage.width}x{worlds.stage.height} pixels are {grid.width}x{grid.height} latent cells: tokens of "
            f"{patch}x{patch} of them need another size"
        )
    about: dict[str, Any] = {"made_by": _digest(vae, tokenizer), **worlds.record()}
    done, held = 0, cache_note(folder)
    scale = scale_of(vae)
    if held is not None:
        found, done = {"made_by": held.made_by, **held.worlds.record()}, held.count
        other = [WORDS[key] for key in about if found.get(key) != about[key]]
        if held.scale and not _alike(held.scale, scale):
            other.append("scales of latents")
        if other:
            raise ValueError(f"{folder} was cached with other {', '.join(other)}: delete it or choose another folder")
        refuse_redrawn(folder, held.drawn, worlds)
    channels = vae.config.z_dim
    layout: dict[str, tuple[type, tuple[int, ...]]] = {
        "latents": (np.float16, (channels, *grid.shape)),
        "ids": (np.int16, (CAPTIONS, tokenizer.model_max_length)),
        "masks": (np.uint8, (2, grid.num_tokens)),
        "phenomena": (np.int8, (2,)),
    }
    if done < count:
        goes_on = held if done else None  # what an older release did not note is not known of its clips
        noted = scale if goes_on is None else goes_on.scale
        drawn = Drawn.by(worlds) if goes_on is None else goes_on.drawn
        about |= {"scale": noted} | ({} if drawn is None else {"drawn": drawn.record()})
        _fill(folder, vae, tokenizer, worlds, layout, about, done, count)
    return LatentCache(**{name: _opened(folder, name, count, *of) for name, of in layout.items()}, patch=patch)


def _opened(folder: Path, name: str, count: int, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """The first ``count`` clips of one array of a cache, memory-mapped."""
    path = folder / f"{name}.npy"
    try:
        array = read_npy(path)
        if len(array) < count or array.dtype != dtype or array.shape[1:] != shape:
            raise ValueError(f"it holds {array.dtype} {array.shape}, not {count} clips of {np.dtype(dtype)} {shape}")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be opened ({error}): delete the folder and encode the clips again") from None
    return array[:count]


@exclusive("encoding clips", folder="folder")
def _fill(
    folder: Path,
    vae: ModelMixin,
    tokenizer: PreTrainedTokenizerBase,
    worlds: WorldSet,
    layout: dict[str, tuple[type, tuple[int, ...]]],
    about: dict[str, Any],
    done: int,
    count: int,
) -> None:
    """Encode clips ``done .. count-1`` beside those that are there."""
    if (0 if (held := cache_note(folder)) is None else held.count) != done:
        raise ValueError(f"another process encoded clips into {folder} meanwhile: start again")
    grid = grid_of(worlds.stage, vae)
    arrays = {}
    for name, (dtype, shape) in layout.items():
        old = np.array(_opened(folder, name, done, dtype, shape)) if done else None
        arrays[name] = np.lib.format.open_memmap(folder / f"{name}.new.npy", "w+", dtype, (count, *shape))
        if old is not None:
            arrays[name][:done] = old[:done]
    channels_last(vae)
    render = partial(_render, grid, worlds)
    workers = 1 if vae.device.type == "cpu" else os.cpu_count() or 1  # a CPU's cores are the autoencoder's
    with torch.no_grad():
        made = made_ahead(render, range(done, count), workers)
        clips = tqdm(made, f"encode {worlds.split}", count - done, mininterval=10)
        batch = []
        for row, (frames, masks, shown) in zip(range(done, count), clips, strict=True):
            arrays["masks"][row], arrays["phenomena"][row] = masks, shown
            texts = worlds.captions(row, CAPTIONS)
            for text, tokens in too_long(tokenizer, texts, tokenizer.model_max_length).items():
                raise ValueError(
                    f"clip {row}: {text!r} is {tokens} tokens long and the model reads {tokenizer.model_max_length}"
                )
            arrays["ids"][row] = tokenizer(texts, padding="max_length", return_tensors="np").input_ids
            batch.append(to_pixels(frames))
            if len(batch) == 8 or row == count - 1:
                videos = torch.stack(batch).contiguous(memory_format=torch.channels_last_3d)
                with torch.autocast(vae.device.type, torch.bfloat16):
                    latents = vae.encode(videos.to(vae.device)).latent_dist.mode().float().cpu()
                arrays["latents"][row + 1 - len(batch) : row + 1] = normalise(latents, vae).half().numpy()
                batch = []
    for name, array in arrays.items():
        array.flush()
        os.replace(folder / f"{name}.new.npy", folder / f"{name}.npy")
    digests = {name: file_sha256(folder / f"{name}.npy") for name in layout}
    write_text(folder / MARKER, json.dumps({**about, "count": count, "sha256": digests}))


def _grid_in(arrays: dict[str, np.ndarray], stage: Stage) -> TokenGrid | None:
    """The latent cells of a cache's clips; None where its arrays are not of one size, or of the stage's."""
    size, masks = arrays["latents"].shape[2:], arrays["masks"].shape[1:]
    cell = stage.height // size[1] if size[1] else 0
    if not cell or stage.height % cell or stage.width % cell or arrays["phenomena"].shape[1] != 2:
        return None
    grid = TokenGrid.from_video(stage.frames, stage.height, stage.width, cell)
    return grid if (grid.shape, (2, grid.num_tokens)) == (size, masks) else None


def verify_worlds(folder: Path) -> list[Problem]:
    """What is wrong with a cache of the worlds: hashes, shapes, values that are not numbers, and clips that this
    release's worlds show otherwise (a few are rendered again).

    Raises:
        FileNotFoundError: there is none.
        ValueError: its description is damaged.
    """
    folder = Path(folder)
    if (note := cache_note(folder)) is None:
        raise FileNotFoundError(f"{folder} holds no cache ({MARKER} is missing)")
    worlds, count, digests = note.worlds, note.count, note.sha256
    cure = "delete the folder and encode the clips again"
    problems = [Problem(path.name, "a killed process's: delete it") for path in visible(folder, "*.new*")]
    arrays: dict[str, np.ndarray] = {}
    for name, (dtype, axes) in _LAYOUT.items():
        path = folder / f"{name}.npy"
        try:
            arrays[name] = read_npy(path)
        except (OSError, ValueError) as error:
            problems.append(Problem(path.name, f"cannot be opened ({error}): {cure}"))
            continue
        if arrays[name].dtype != dtype or arrays[name].ndim != axes:
            is_now = f"{arrays[name].dtype} of {arrays[name].ndim} axes"
            problems.append(Problem(path.name, f"is {is_now}, not {np.dtype(dtype)} of {axes}: {cure}"))
        elif len(arrays[name]) < count:
            problems.append(Problem(path.name, f"holds {len(arrays[name])} clips, not {count}: {cure}"))
        elif len(arrays[name]) > count:  # killed between these files and cache.json, while clips were added
            problems.append(Problem(path.name, f"holds more than the {count} clips that count", harmless=True))
        elif name in digests and file_sha256(path) != digests[name]:
            problems.append(Problem(path.name, f"is not what was written (its hash differs): {cure}"))
    if not digests:
        problems.append(Problem(MARKER, "made by an older release, which noted no hashes to compare", harmless=True))
    if arrays.keys() < set(ARRAYS) or any(not problem.harmless for problem in problems):
        return problems
    latents, grid = arrays["latents"], _grid_in(arrays, worlds.stage)
    if grid is None:
        return [*problems, Problem("latents.npy", f"holds clips of another size than masks.npy and {MARKER}: {cure}")]
    if any(not np.isfinite(latents[start : start + 64]).all() for start in range(0, count, 64)):
        problems.append(Problem("latents.npy", f"holds values that are not numbers: {cure}"))
    if note.drawn is not None:
        now = Drawn.by(worlds)
        for what in now.differences(note.drawn):
            problems.append(Problem(MARKER, f"this release's worlds make other {what}: {cure}"))
        if not now.comparable(note.drawn):
            problems.append(Problem(MARKER, "rendered on another kind of machine: not rendered again", harmless=True))
            return problems
    for row in sorted({int(row) for row in np.linspace(0, count - 1, _LOOKED_AT)}):
        _, masks, shown = _render(grid, worlds, row)
        if not (np.array_equal(masks, arrays["masks"][row]) and np.array_equal(shown, arrays["phenomena"][row])):
            problems.append(Problem("masks.npy", f"clip {row} is another in this release's worlds: {cure}"))
    return problems
