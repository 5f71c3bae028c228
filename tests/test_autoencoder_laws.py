"""What an autoencoder keeps of the laws: measured on the shipped one, and on one that keeps everything."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan

from prophy.assets import default_model
from prophy.evaluation import cli
from prophy.evaluation.measures.autoencoder import PICTURE, evaluate_autoencoder, signal_to_noise
from prophy.evaluation.report.readers import as_text
from prophy.evaluation.results.autoencoder import AutoencoderResult
from prophy.worlds import Stage

SEEN = ("elastic_motion", "melting")


class Faithful(torch.nn.Module):
    """Latents are the pixels."""

    config = SimpleNamespace(scale_factor_spatial=8)
    device, dtype = torch.device("cpu"), torch.float32

    def encode(self, video):
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: video))

    def decode(self, latents):
        return SimpleNamespace(sample=latents)


def test_one_that_keeps_every_pixel_keeps_every_law(tmp_path: Path):
    result = evaluate_autoencoder(Faithful(), tmp_path, 4, ("test",), SEEN)
    assert result.splits["test"].kept.value == result.splits["test"].real.value == 1
    assert result.splits["test"].lost.value == 0
    assert result.splits["test"].psnr.value > 100


def test_the_shipped_one_is_measured_by_law_with_a_picture_and_comes_back_from_its_file(tmp_path: Path):
    vae = AutoencoderKLWan.from_pretrained(Path(default_model()) / "vae", dtype=torch.float32).eval()
    result = evaluate_autoencoder(vae, tmp_path, 6, ("test", "parameters"), SEEN)
    assert result.splits.keys() == {"test", "parameters"}
    for one in result.splits.values():
        assert 0.3 < one.kept.value <= 1
        assert 25 < one.psnr.value < 40
        assert np.mean([law.value for law in one.by_law.values()]) == pytest.approx(one.kept.value)
    assert (tmp_path / "evaluation" / PICTURE).read_bytes().startswith(b"\x89PNG")
    assert AutoencoderResult.load(tmp_path) == result
    assert "laws kept" in as_text(result)


def test_signal_to_noise_of_one_grey_level_is_48_decibels():
    real = np.full((2, 3, 4, 5, 3), 100, np.uint8)
    assert signal_to_noise(real + 1, real) == pytest.approx([48.13, 48.13], abs=0.01)


def test_what_cannot_be_measured_is_refused_in_one_line(tmp_path: Path):
    coarse = Faithful()
    coarse.config = SimpleNamespace(scale_factor_spatial=16)
    with pytest.raises(ValueError, match="--size 104x64: this autoencoder's cells are 16 pixels wide"):
        evaluate_autoencoder(coarse, tmp_path, 2, ("test",), SEEN, Stage(104, 64))
    with pytest.raises(ValueError, match="--clips 0: measure at least one"):
        evaluate_autoencoder(Faithful(), tmp_path, 0, ("test",), SEEN)
    with pytest.raises(FileNotFoundError, match="holds no autoencoder"):
        cli.main(["autoencoder", "--work", str(tmp_path), "--model", "nowhere"])


def test_the_command_prints_both_gates(tmp_path: Path, capsys):
    cli.main(["autoencoder", "--work", str(tmp_path), "--clips", "3", "--split", "test"])
    printed = capsys.readouterr().out
    assert "gate 96 %" in printed
    assert "gate 33" in printed
    saved = json.loads((tmp_path / "evaluation" / "autoencoder.json").read_text())
    assert saved["made_by"]["command"].startswith("prophy evaluate autoencoder")
