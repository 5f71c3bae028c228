"""The embedded autoencoder under training computes what the stock one does."""

import pytest
import torch
from diffusers import AutoencoderKLWan

from prophy.tiny import fast_vae
from prophy.tiny.vae import build_vae


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
