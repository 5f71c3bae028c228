"""What an autoencoder keeps: the laws that real renders obey, tracked before and after, and how the frames look.

    prophy evaluate autoencoder --model runs/tiny/model --size 192x128x17 --work runs/tiny

A transformer that works in an autoencoder's latents can hardly be more lawful than this.

Shapes: n clips, L laws.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoModel, ModelMixin

from prophy.backbones.opening import part_opened
from prophy.backbones.variants import variant_beside
from prophy.evaluation.judges.pictures import through_autoencoder
from prophy.evaluation.measures.laws import SPLITS_MEASURED, asked_clips, clip_errors, verdicts_of
from prophy.evaluation.measures.metrics import bootstrap
from prophy.evaluation.results import FOLDER
from prophy.evaluation.results.autoencoder import AutoencoderResult, KeptLaws
from prophy.files import sha256
from prophy.phenomena import IDS, by_id
from prophy.runs.pictures import evenly_spaced, resized, write_png
from prophy.runs.sheets import Block, Row, draw_sheet
from prophy.worlds import Stage, sample_clip

GATE_KEPT, GATE_PSNR = 0.96, 33.0  #: on each split; dB
PICTURE = "autoencoder.png"
_TILE, _SHOWN = 96, 6


def evaluate_autoencoder(
    vae: ModelMixin,
    work: Path,
    clips: int,
    splits: Sequence[str] = SPLITS_MEASURED,
    phenomena: tuple[str, ...] = IDS,
    stage: Stage = Stage(),
    batch: int = 4,
) -> AutoencoderResult:
    """Render, encode, decode, track; writes ``autoencoder.json`` and its picture under ``work/evaluation``.

    Args:
        vae: on any device.
        work: folder of results.
        clips: of each split.
        splits: of the worlds.
        phenomena: ids to draw from.
        stage: size, length and rate of every clip.
        batch: clips at a time.

    Raises:
        ValueError: an unknown split, no clips, or a size that the autoencoder cannot take.
    """
    if clips < 1:
        raise ValueError(f"--clips {clips}: measure at least one")
    cell = vae.config.scale_factor_spatial
    if stage.width % cell or stage.height % cell:
        raise ValueError(f"--size {stage.width}x{stage.height}: this autoencoder's cells are {cell} pixels wide")
    found = {}
    for split in splits:
        asked = asked_clips(split, clips, phenomena)
        real = np.stack([sample_clip(one.scene, split, phenomena, stage).frames for one in asked])
        decoded = through_autoencoder(real, vae, batch)
        errors = {
            name: [clip_errors(clip, one.scenario, stage) for clip, one in zip(frames, asked, strict=True)]
            for name, frames in (("real", real), ("decoded", decoded))
        }
        laws, before = verdicts_of(errors["real"])
        _, after = verdicts_of(errors["decoded"])
        kept = np.where(before == 1, after, np.nan)
        shown = [i for i in range(len(laws)) if not np.isnan(kept[:, i]).all()]
        scenes = [(len(clip.lost), len({law.rpartition(": ")[0] for law in clip.errors})) for clip in errors["decoded"]]
        found[split] = KeptLaws(
            real=bootstrap(before),
            kept=bootstrap(kept),
            lost=bootstrap(np.array([lost / count for lost, count in scenes])),
            psnr=bootstrap(signal_to_noise(decoded, real)),
            by_law={laws[i]: bootstrap(kept[:, i]) for i in shown},
        )
    folder = Path(work) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    write_png(folder / PICTURE, draw_before_and_after(vae, phenomena, stage, batch))
    return AutoencoderResult(
        splits=found,
        clips=clips,
        autoencoder_sha256=_digest(vae),
        size=stage.size,
        fps=stage.fps,
        pictures=(PICTURE,),
    ).save(work)


def open_autoencoder(model: Path, device: torch.device) -> ModelMixin:
    """The autoencoder of a diffusers folder, which may lack its transformer, in float32.

    Raises:
        FileNotFoundError: the folder holds none.
        ValueError: it is damaged. One line.
    """
    folder = Path(model) / "vae"
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no autoencoder (config.json is missing): give a diffusers folder")
    with part_opened(folder):
        vae: ModelMixin = AutoModel.from_pretrained(str(folder), dtype=torch.float32, variant=variant_beside(folder))
    return vae.eval().to(device)


def signal_to_noise(decoded_nFHWC: np.ndarray, real_nFHWC: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio of each clip, uint8, in dB, float64 ``(n,)``."""
    error = np.square(decoded_nFHWC.astype(np.float64) - real_nFHWC).mean((1, 2, 3, 4))
    return 10 * np.log10(255**2 / np.maximum(error, 1e-9))


def draw_before_and_after(
    vae: ModelMixin, phenomena: Sequence[str], stage: Stage, batch: int, scenes: int = 2, split: str = "test"
) -> np.ndarray:
    """Some scenes of each phenomenon, the render above and the same behind the autoencoder below."""
    names = [name for name in phenomena for _ in range(scenes)]
    clips = [sample_clip(9_500 + i, split, (name,), stage) for i, name in enumerate(names)]
    real = np.stack([clip.frames for clip in clips])
    decoded = through_autoencoder(real, vae, batch)
    blocks = []
    for name, before, after in zip(names, real, decoded, strict=True):
        rows = [resized(frames, _TILE)[evenly_spaced(len(frames), _SHOWN)] for frames in (before, after)]
        blocks.append(Block([Row(rows[0]), Row(rows[1])], [by_id(name).name]))
    return draw_sheet(blocks, 2)


def _digest(vae: ModelMixin) -> str:
    tensors = sorted(vae.state_dict().items())
    return sha256("\n".join(f"{name} {sha256(value.cpu().float().numpy().tobytes())}" for name, value in tensors))
