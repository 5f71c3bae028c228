"""Training's attention is the stock one: the same output and the same gradients."""

import torch

from prophy.backbones.wan import PlainAttention


def test_it_computes_what_the_stock_processor_computes(tiny_transformer):
    torch.manual_seed(0)
    latents, text, time = torch.randn(2, 4, 3, 4, 5), torch.randn(2, 7, 24), torch.tensor([900.0, 30.0])
    outputs, gradients = [], []
    for install in (False, True):
        if install:
            tiny_transformer.set_attn_processor(PlainAttention())
        tiny_transformer.zero_grad()
        output = tiny_transformer(latents, time, text, return_dict=False)[0]
        output.square().sum().backward()
        outputs.append(output.detach())
        gradients.append([p.grad.clone() for p in tiny_transformer.parameters() if p.grad is not None])
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-5)
    assert len(gradients[0]) == len(gradients[1])
    for theirs, ours in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
