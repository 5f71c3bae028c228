"""Principal components of the worlds' latent cells: the linear code that the autoencoder starts from.

Shapes: B clips of F frames of H×W pixels; T latent frames of h×w cells; n cells of D numbers, C channels of a code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from prophy.backbones.autoencoder import to_pixels
from prophy.data.clip_pool import ClipPool
from prophy.files import check_file, replacing

_POOL = "pool"  # in its header: what the worlds drew
FRAMES = 4  #: of a cell; the first frame of a clip, which has a latent frame of its own, stands for as many


def cells(video_BCTHW: torch.Tensor, side: int) -> torch.Tensor:
    """The pixels of every latent cell, ``(B, T, h, w, D)``.

    Args:
        video_BCTHW: clips of 1 + 4k frames.
        side: pixels on a side of a cell.
    """
    whole = torch.cat([video_BCTHW[:, :, :1].expand(-1, -1, FRAMES - 1, -1, -1), video_BCTHW], 2)
    cut = whole.unflatten(4, (-1, side)).unflatten(3, (-1, side)).unflatten(2, (-1, FRAMES))
    return cut.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4)


@dataclass(frozen=True)
class LinearCode:
    """The first C principal components, each of variance 1.

    Attributes:
        side: pixels on a side of a cell.
        mean_D: of a cell.
        components_DC: unit vectors, the strongest first.
        deviation_C: of the cells along each.
    """

    side: int
    mean_D: torch.Tensor
    components_DC: torch.Tensor
    deviation_C: torch.Tensor

    @classmethod
    def fit(cls, parts: Iterable[torch.Tensor], side: int, channels: int) -> LinearCode:
        """The components of more cells than channels, from the sums of their products: exact, and no cell is held.

        Args:
            parts: cells, each part ``(n, D)``.
            side: pixels on a side of a cell.
            channels: how many components.
        """
        numbers = FRAMES * side**2 * 3
        count, total_D = 0, torch.zeros(numbers, dtype=torch.float64)
        products_DD = torch.zeros(numbers, numbers, dtype=torch.float64)
        for cells_nD in parts:
            exact_nD = cells_nD.double()
            count += len(exact_nD)
            total_D += exact_nD.sum(0)
            products_DD.addmm_(exact_nD.T, exact_nD)
        mean_D = total_D / count
        variances_D, vectors_DD = torch.linalg.eigh(products_DD / count - mean_D.outer(mean_D))
        strongest = slice(-channels, None)
        components_DC = vectors_DD[:, strongest].flip(1).float().contiguous()
        return cls(side, mean_D.float(), components_DC, variances_D[strongest].flip(0).clamp(min=0).sqrt().float())

    def first(self, channels: int) -> LinearCode:
        """The code of fewer components."""
        return LinearCode(
            self.side, self.mean_D, self.components_DC[:, :channels].contiguous(), self.deviation_C[:channels]
        )

    def encode(self, video_BCTHW: torch.Tensor) -> torch.Tensor:
        """Clips to codes, ``(B, C, T, h, w)``."""
        code = (cells(video_BCTHW, self.side) - self.mean_D) @ self.components_DC / self.deviation_C
        return code.permute(0, 4, 1, 2, 3).contiguous()

    def decode(self, code_BCThw: torch.Tensor) -> torch.Tensor:
        """Codes to clips, ``(B, 3, F, H, W)``; of the four frames that the first latent frame stands for, the last."""
        cells_BThwD = code_BCThw.permute(0, 2, 3, 4, 1) * self.deviation_C @ self.components_DC.T + self.mean_D
        cut = cells_BThwD.unflatten(4, (FRAMES, self.side, self.side, -1))
        return cut.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6).flatten(4, 5).flatten(2, 3)[:, :, FRAMES - 1 :]

    def error(self, cells_nD: torch.Tensor) -> torch.Tensor:
        """Mean square of what the code loses of each cell, ``(n,)``."""
        centred = cells_nD - self.mean_D
        return (centred - centred @ self.components_DC @ self.components_DC.T).square().mean(-1)

    def to(self, device: torch.device) -> LinearCode:
        return LinearCode(self.side, self.mean_D.to(device), self.components_DC.to(device), self.deviation_C.to(device))


def pooled_code(path: Path, pool: ClipPool, side: int, channels: int, clips: int = 500) -> LinearCode:
    """The code of a pool of clips, kept in a file: computed anew, a component might change its sign.

    Cells are cut at places chosen by lot, as the windows of training are.

    Raises:
        ValueError: the file is damaged, or none, or of a pool whose clips were drawn otherwise. One line.
    """
    if not path.exists():
        rng = np.random.default_rng(0)
        kept = []
        for i in rng.permutation(len(pool.frames))[:clips]:
            corner = rng.integers(0, side, 2)
            video = to_pixels(pool.frames[i])[None, :, :, corner[0] :, corner[1] :]
            rows, columns = (side * (size // side) for size in video.shape[3:])
            found = cells(video[..., :rows, :columns], side).flatten(0, 3)
            kept.append(found[rng.permutation(len(found))[:120]])
        code = LinearCode.fit(kept, side, channels)
        tensors = {"mean": code.mean_D, "components": code.components_DC, "deviation": code.deviation_C}
        with replacing(path, shared=True) as partial:
            save_file(tensors, partial, {_POOL: pool.drawn})
    try:
        tensors = load_file(check_file(path))
        with safe_open(path, "pt") as file:
            drawn = (file.metadata() or {}).get(_POOL, "")
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read ({error}): delete it, it is computed again") from None
    width = 3 * FRAMES * side**2
    shapes = {"mean": (width,), "components": (width, channels), "deviation": (channels,)}
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != shapes:
        raise ValueError(f"{path} holds another code: delete it, it is computed again")
    numbers = all(tensor.dtype == torch.float32 and bool(tensor.isfinite().all()) for tensor in tensors.values())
    if not numbers or not (tensors["deviation"] > 0).all():  # a code is divided by it
        raise ValueError(f"{path} holds values that no code has: delete it, it is computed again")
    if drawn and pool.drawn and drawn != pool.drawn:
        raise ValueError(f"{path} is the code of other clips than the pool's: delete it, it is computed again")
    return LinearCode(side, tensors["mean"], tensors["components"], tensors["deviation"])
