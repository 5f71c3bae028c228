"""The embedded autoencoder under training computes what the stock one does."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import save_file

from prophy.backbones.autoencoder import normalise, to_pixels
from prophy.tiny import fast_vae
from prophy.tiny.latent_scale import latent_scale
from prophy.tiny.linear_code import LinearCode, cells, pooled_code
from prophy.tiny.vae import CELL, LATENT_CHANNELS, VaeRecipe, apart_loss, build_vae
from prophy.worlds import Stage, sample_clip


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLWan:
    torch.manual_seed(0)
    vae = build_vae().eval()
    with torch.no_grad():
        for parameter in vae.parameters():  # away from the zeros and ones of a fresh model
            parameter += 0.02 * torch.randn_like(parameter)
    return vae


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 5, 17])
def test_a_clip_in_one_piece_is_the_stock_models_clip_in_chunks(vae, frames):
    video = torch.rand(2, 3, frames, 32, 48) * 2 - 1
    stock, ours = vae.encode(video).latent_dist, fast_vae.encode(vae, video)
    torch.testing.assert_close(ours.mean, stock.mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.logvar, stock.logvar, atol=1e-4, rtol=1e-4)
    decoded = vae.decode(stock.mean).sample
    assert decoded.shape == video.shape
    assert decoded.std() > 0.1
    torch.testing.assert_close(fast_vae.decode(vae, stock.mean).clamp(-1, 1), decoded, atol=1e-4, rtol=1e-4)


def test_gradients_in_one_piece_are_those_in_chunks(vae):
    video = torch.rand(1, 3, 9, 32, 32) * 2 - 1
    gradients = []
    for encode, decode in (
        (lambda v: vae.encode(v).latent_dist.mean, lambda z: vae.decode(z).sample),
        (lambda v: fast_vae.encode(vae, v).mean, lambda z: fast_vae.decode(vae, z).clamp(-1, 1)),
    ):
        vae.zero_grad()
        (decode(encode(video)) - video).square().mean().backward()
        gradients.append({name: p.grad.clone() for name, p in vae.named_parameters() if p.grad is not None})
    stock, ours = gradients
    assert stock.keys() == ours.keys()
    for name, gradient in stock.items():
        assert (ours[name] - gradient).norm() <= 1e-3 * gradient.norm() + 1e-7, name


def test_the_linear_code_keeps_what_its_components_span():
    torch.manual_seed(2)
    video = torch.rand(2, 3, 9, 16, 24) * 2 - 1
    video[:, :, 1:5] = video[:, :, :1]  # four frames that stand still
    found = cells(video, 8)
    assert found.shape == (2, 3, 2, 3, 4 * 8 * 8 * 3)
    code = LinearCode.fit(found.flatten(0, 2), 8, channels=20)
    codes = code.encode(video)
    assert codes.shape == (2, 20, 3, 2, 3)
    torch.testing.assert_close(codes[:, :, 0], codes[:, :, 1])  # the first frame stands for four
    torch.testing.assert_close(codes.transpose(0, 1).flatten(1).std(1, correction=0), torch.ones(20))
    whole = LinearCode.fit([found.flatten(0, 3)], 8, channels=35)  # 36 cells span 35 directions
    assert whole.error(found.flatten(0, 3)).max() < 1e-6 < code.error(found.flatten(0, 3)).min()
    torch.testing.assert_close(whole.decode(whole.encode(video)), video, atol=1e-3, rtol=0)
    few = whole.first(20)  # the same components, whatever parts the cells came in; their signs are free
    torch.testing.assert_close(few.deviation_C, code.deviation_C, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(few.decode(few.encode(video)), code.decode(code.encode(video)), atol=1e-3, rtol=0)


def test_the_kept_file_of_a_linear_code_is_read_as_before(tmp_path: Path):
    """A training under way has one that was computed otherwise: it is not computed anew."""
    torch.manual_seed(2)
    kept = {"mean": torch.rand(12 * 64), "components": torch.rand(12 * 64, 5), "deviation": torch.rand(5)}
    save_file(kept, tmp_path / "linear-code.safetensors")
    code = pooled_code(tmp_path / "linear-code.safetensors", None, 8, 5)
    assert torch.equal(code.mean_D, kept["mean"])
    assert torch.equal(code.components_DC, kept["components"])
    assert torch.equal(code.deviation_C, kept["deviation"])


def test_apart_neither_half_hears_of_the_other(vae):
    torch.manual_seed(3)
    video, weight = torch.rand(2, 3, 5, 64, 64) * 2 - 1, torch.ones(2, 5, 64, 64)
    code = LinearCode.fit([cells(video, CELL).flatten(0, 3)], CELL, LATENT_CHANNELS)

    def gradients() -> dict[str, torch.Tensor]:
        vae.zero_grad()
        torch.manual_seed(4)  # of the noise on the codes
        apart_loss(vae, video, weight, VaeRecipe(precision="float32"), code).backward()
        return {name: p.grad.clone() for name, p in vae.named_parameters() if p.grad is not None}

    before = gradients()
    assert before.keys() >= {"encoder.conv_in.weight", "decoder.conv_out.weight"}
    with torch.no_grad():
        vae.encoder.conv_in.weight.mul_(1.5)
    try:
        after = gradients()
    finally:
        with torch.no_grad():
            vae.encoder.conv_in.weight.div_(1.5)
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("decoder"))
    assert not torch.equal(after["encoder.conv_out.weight"], before["encoder.conv_out.weight"])


@torch.no_grad()
def test_channels_are_as_large_as_what_they_move(vae):
    model = build_vae().eval()
    model.load_state_dict(vae.state_dict())
    model.post_quant_conv.weight[:, 0] *= 30  # the decoder hears channel 0 far more than the others
    model.post_quant_conv.weight[:, 5] = 0  # and channel 5 not at all
    stage = Stage(64, 64, 17, 8)
    mean, std = latent_scale(model, stage, clips=8, precision="float32")
    model.register_to_config(latents_mean=mean, latents_std=std)
    video = torch.stack([to_pixels(sample_clip(seed, "train", stage=stage).frames) for seed in range(8)])
    latents_BCThw = normalise(model.encode(video).latent_dist.mode(), model)
    sizes_C = latents_BCThw.transpose(0, 1).flatten(1).std(1)
    assert sizes_C.square().mean() == pytest.approx(1, abs=0.01)
    assert sizes_C[0] > 2 * sizes_C[1:].max()
    assert sizes_C[5] == pytest.approx(1e-3**0.5, rel=0.01)
    assert latents_BCThw.mean((0, 2, 3, 4)).abs().max() < 0.01 * sizes_C[0]
