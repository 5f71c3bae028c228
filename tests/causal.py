"""A small random pipeline whose branch names its experts by phenomena, for measures of causes."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from conftest import make_branch
from transformers import UMT5EncoderModel

from prophy.backbones.wan import ProPhyWanPipeline
from prophy.evaluation.measures.laws import asked_clips
from prophy.tiny.text import build_tokenizer

SCOPE = ("melting", "collision", "combustion")
EXPERTS = 19  #: one for each phenomenon, one for none, and one more


def known(pipeline: ProPhyWanPipeline, captions: Iterable[str]) -> ProPhyWanPipeline:
    """The pipeline with a tokenizer that knows the captions."""
    torch.manual_seed(8)
    tokenizer = build_tokenizer(list(captions))
    config = copy.deepcopy(pipeline.text_encoder.config)
    config.vocab_size = len(tokenizer)
    pipeline.register_modules(tokenizer=tokenizer, text_encoder=UMT5EncoderModel(config).eval())
    return pipeline


def with_experts(pipeline: ProPhyWanPipeline) -> ProPhyWanPipeline:
    """The pipeline with such a branch, so strong that what it does is seen in pixels."""
    known(pipeline, (one.prompt for shown in (1, 2) for one in asked_clips("test", 12, SCOPE, shown)))
    pipeline.attachment.detach()
    parts = {name: part for name, part in pipeline.components.items() if name != "branch"}
    branch = make_branch(pipeline.transformer, trained=True, num_refinement_experts=EXPERTS)
    for projection in branch.projections:
        torch.nn.init.normal_(projection.weight, std=0.6)
    torch.nn.init.normal_(branch.refinement.weight_EDD, std=0.5)
    return ProPhyWanPipeline(**parts, branch=branch)
