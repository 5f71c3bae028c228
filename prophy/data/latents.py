"""The latent cache: every training clip encoded once, with its text tokens and per-token masks.

Stored as plain ``.npy`` arrays beside a JSON that says what made them; a cache made by another autoencoder,
tokenizer or scope is refused, not mixed in.
"""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import ModelMixin
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from prophy.backbones.autoencoder import normalise, to_pixels
from prophy.files import write_text
from prophy.grid import TokenGrid
from prophy.phenomena import IDS, by_id
from prophy.worlds import Stage, sample_clip, sample_scenario

CAPTIONS = 4  #: wordings kept for each clip


#: what a cache was made with -> what a refusal calls it
WORDS = {
    "made_by": "weights",
    "phenomena": "phenomena",
    "split": "clips",
    "stage": "sizes",
    "lawful": "clocks",
}


@dataclass(frozen=True)
class LatentCache:
    """Encoded clips.

    Attributes:
        latents: float16 ``(n, C, T, H, W)``, normalised.
        ids: int16 ``(n, CAPTIONS, L)``: token ids of several wordings of each clip's caption.
        masks: uint8 ``(n, 2, N)``: share of each token covered by the first and second phenomenon, times 255.
        phenomena: int8 ``(n, 2)``: which phenomena those are, -1 for none.
    """

    latents: np.ndarray
    ids: np.ndarray
    masks: np.ndarray
    phenomena: np.ndarray

    def __len__(self) -> int:
        return len(self.latents)

    def labels(self, rows: np.ndarray) -> torch.Tensor:
        """Multi-hot phenomena of clips ``rows``, float32 ``(B, 17)``."""
        labels = torch.zeros(len(rows), len(IDS) + 1)
        labels.scatter_(1, torch.from_numpy(self.phenomena[rows].astype(np.int64)) % (len(IDS) + 1), 1.0)
        return labels[:, :-1]

    def targets(self, rows: np.ndarray) -> torch.Tensor:
        """Per-token phenomenon maps of clips ``rows``, float32 ``(B, N, 17)`` in [0, 1]."""
        maps = torch.zeros(len(rows), self.masks.shape[2], len(IDS))
        for b, row in enumerate(rows):
            for slot in range(2):
                if (index := int(self.phenomena[row, slot])) >= 0:
                    maps[b, :, index] = torch.from_numpy(self.masks[row, slot].astype(np.float32) / 255)
        return maps


def grid_of(stage: Stage, vae: ModelMixin) -> TokenGrid:
    """The tokens of a clip: patches of one latent cell, each as large as the autoencoder makes it."""
    cell = vae.config.scale_factor_spatial or 8
    return TokenGrid.from_video(stage.frames, stage.height, stage.width, cell)


def _render(
    grid: TokenGrid, split: str, phenomena: tuple[str, ...], stage: Stage, lawful: bool, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    clip = sample_clip(seed, split, phenomena, stage, lawful)
    masks = np.zeros((2, grid.num_tokens), np.uint8)
    shown = len(clip.masks)
    masks[:shown] = np.round(grid.pool_masks(np.stack(list(clip.masks.values()))) * 255)
    indices = np.full(2, -1, np.int8)
    indices[:shown] = [by_id(phenomenon).index for phenomenon in clip.masks]
    return clip.frames, masks, indices


def cached_as(folder: Path) -> dict:
    """What the cache in a folder was made with; those of the first generation do not say their size."""
    return {"stage": asdict(Stage()), "lawful": True} | json.loads((Path(folder) / "cache.json").read_text())


def _digest(vae: ModelMixin, tokenizer: PreTrainedTokenizerBase) -> str:
    digest = hashlib.sha256(json.dumps(tokenizer.get_vocab(), sort_keys=True).encode())
    for name, tensor in vae.state_dict().items():  # as they ship: rounded weights are the same autoencoder
        digest.update(name.encode() + tensor.half().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def open_cache(
    folder: Path,
    vae: ModelMixin,
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    phenomena: tuple[str, ...],
    split: str = "train",
    stage: Stage = Stage(),
    lawful: bool = True,
) -> LatentCache:
    """Open the cache of clips ``0 .. count-1``, making or extending it first.

    Args:
        folder: of the cache.
        vae: encodes the clips.
        tokenizer: of their captions.
        count: of clips.
        phenomena: ids to draw from.
        split: of the worlds.
        stage: size, length and rate of the clips.
        lawful: or each event runs by a clock that obeys no law.

    Raises:
        ValueError: the folder holds a cache made otherwise, or a size that the autoencoder cannot take.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / "cache.json"
    grid = grid_of(stage, vae)
    about = {
        "made_by": _digest(vae, tokenizer),
        "phenomena": list(phenomena),
        "split": split,
        "stage": asdict(stage),
        "lawful": lawful,
    }
    done = 0
    if marker.exists():
        found = cached_as(folder)
        done = found.pop("count")
        if other := [WORDS[key] for key in about if found.get(key) != about[key]]:
            raise ValueError(f"{folder} was cached with other {', '.join(other)}: delete it or choose another folder")
    channels = vae.config.z_dim
    layout = {
        "latents": (np.float16, (channels, *grid.shape)),
        "ids": (np.int16, (CAPTIONS, tokenizer.model_max_length)),
        "masks": (np.uint8, (2, grid.num_tokens)),
        "phenomena": (np.int8, (2,)),
    }
    if done < count:
        arrays = {}
        for name, (dtype, shape) in layout.items():
            old = np.array(np.load(folder / f"{name}.npy")) if done else None
            arrays[name] = np.lib.format.open_memmap(folder / f"{name}.new.npy", "w+", dtype, (count, *shape))
            if old is not None:
                arrays[name][:done] = old[:done]
        render = partial(_render, grid, split, phenomena, stage, lawful)
        with ProcessPoolExecutor(1) as executor, torch.no_grad():
            made = executor.map(render, range(done, count), chunksize=8)
            clips = tqdm(made, f"encode {split}", count - done, mininterval=10)
            batch = []
            for row, (frames, masks, shown) in zip(range(done, count), clips, strict=True):
                arrays["masks"][row], arrays["phenomena"][row] = masks, shown
                scenario, first = sample_scenario(row, split, phenomena)
                words = np.random.default_rng([row, 7])
                texts = [first] + [scenario.describe(words, split == "wordings") for _ in range(CAPTIONS - 1)]
                arrays["ids"][row] = tokenizer(
                    texts, padding="max_length", truncation=True, return_tensors="np"
                ).input_ids
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
        write_text(marker, json.dumps({**about, "count": count}))
    return LatentCache(**{name: np.load(folder / f"{name}.npy", mmap_mode="r")[:count] for name in layout})
