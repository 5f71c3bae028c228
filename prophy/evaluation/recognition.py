"""Recognition: an independent classifier looks at decoded pixels and says which phenomena a clip shows.

It is trained on real renders of the worlds only, never on generated clips, and its own error on held-out renders is
reported beside every number it gives.

    prophy evaluate recognition --train --work runs/tiny
    prophy evaluate recognition --model assets/prophy-tiny --work runs/tiny
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from prophy.data.clip_pool import ClipPool
from prophy.phenomena import IDS
from prophy.worlds import sample_scenario

LOOKED_AT = (0, 2, 4, 6, 8, 10, 12, 14, 16)  #: frames the classifier sees


class Recogniser(nn.Module):
    """Frames stacked as channels, five strided convolutions, the strongest response anywhere in the picture."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        widths = (3 * len(LOOKED_AT), width, 2 * width, 3 * width, 4 * width)
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True)):  # noqa: RUF007
            layers += [nn.Conv2d(a, b, 5 if i == 0 else 3, 2, 2 if i == 0 else 1), nn.GroupNorm(8, b), nn.SiLU()]
            layers += [nn.Conv2d(b, b, 3, 1, 1), nn.GroupNorm(8, b), nn.SiLU()] if i else []
        self.body = nn.Sequential(*layers)
        self.head = nn.Conv2d(widths[-1], len(IDS), 1)

    def forward(self, frames_BFHWC: torch.Tensor) -> torch.Tensor:
        """uint8 frames ``(B, F, H, W, 3)`` to logits ``(B, 17)``."""
        x = frames_BFHWC[:, list(LOOKED_AT)].float() / 127.5 - 1
        x = x.permute(0, 1, 4, 2, 3).flatten(1, 2)
        if self.training:  # generated clips are a little soft, noisy and off-colour: so are these
            shape = (len(x), 1, 1, 1)
            x = x * (1 + 0.15 * torch.randn(shape)) + 0.1 * torch.randn(shape)
            soft = functional.avg_pool2d(x, 3, 1, 1)
            x = torch.lerp(x, soft, torch.rand(shape)) + 0.15 * torch.rand(shape) * torch.randn_like(x)
        return self.head(self.body(x)).flatten(2).logsumexp(-1)


def labels_of(seeds: range, split: str, phenomena: tuple[str, ...] = IDS) -> torch.Tensor:
    """Multi-hot labels of worlds clips, float32 ``(n, 17)``."""
    return torch.from_numpy(np.stack([sample_scenario(seed, split, phenomena)[0].labels for seed in seeds]))


def exact_share(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of clips whose set of phenomena is recognised exactly."""
    return float(((logits > 0) == labels.bool()).all(1).float().mean())


def train_recogniser(work: Path, clips: int = 6000, steps: int = 2500, batch: int = 48, seed: int = 0) -> Recogniser:
    """Train on the pool of rendered clips; saves ``recogniser.safetensors`` and its held-out error under ``work``."""
    torch.manual_seed(seed)
    work = Path(work)
    pool = ClipPool(work / "pool", clips)
    labels = labels_of(range(clips), "train")
    model = Recogniser().train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.05)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.1)
    bar = tqdm(range(steps), desc="recogniser", mininterval=5)
    for _ in bar:
        rows = torch.randint(clips, (batch,)).sort().values
        frames = torch.from_numpy(pool.frames[rows.numpy()])
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(frames)
        loss = functional.binary_cross_entropy_with_logits(logits.float(), labels[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()
        bar.set_postfix(loss=f"{float(loss.detach()):.4f}", refresh=False)
    test = ClipPool(work / "pool-test", 1000, "test")
    logits = recognise(model, test.frames)
    exact = exact_share(logits, labels_of(range(1000), "test"))
    save_file(model.state_dict(), work / "recogniser.safetensors")
    (work / "recogniser.json").write_text(json.dumps({"exact_on_held_out_renders": exact, "steps": steps}))
    return model


@torch.no_grad()
def recognise(model: Recogniser, frames_nFHWC: np.ndarray) -> torch.Tensor:
    """Logits ``(n, 17)`` for uint8 clips."""
    model.eval()
    parts = [frames_nFHWC[i : i + 64] for i in range(0, len(frames_nFHWC), 64)]
    return torch.cat([model(torch.from_numpy(np.ascontiguousarray(part))) for part in parts])


def load_recogniser(path: Path) -> Recogniser:
    """Open a trained classifier.

    Raises:
        FileNotFoundError: it has not been trained.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} is missing: run `prophy evaluate recognition --train` first")
    model = Recogniser()
    model.load_state_dict(load_file(path))
    return model


@dataclass(frozen=True)
class RecognitionScore:
    """How often the prompted phenomena are recognised.

    Attributes:
        single: share of single-phenomenon prompts whose phenomenon is recognised.
        both: share of two-phenomena prompts of which both are recognised.
        exact: share of all prompts with exactly the prompted set.
        per_phenomenon: recall by phenomenon id.
    """

    single: float
    both: float
    exact: float
    per_phenomenon: dict[str, float]


def score(logits: torch.Tensor, labels: torch.Tensor) -> RecognitionScore:
    """Compare what was recognised with what was prompted, both ``(n, 17)``."""
    found, asked = logits > 0, labels.bool()
    all_found = (found | ~asked).all(1).float()
    count = asked.sum(1)
    recall = {IDS[i]: float(found[asked[:, i], i].float().mean()) for i in range(len(IDS)) if asked[:, i].any()}
    return RecognitionScore(
        float(all_found[count == 1].mean()), float(all_found[count == 2].mean()), exact_share(logits, labels), recall
    )
