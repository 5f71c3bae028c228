"""What a backbone family must tell the branch: how its blocks are built, copied and called.

The branch knows families by name only; ``prophy.backbones`` registers them. Nothing here imports a backbone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import torch
from torch import nn

#: what a family's blocks take and return: a tensor, or as many as it has kinds of tokens. Only the family knows.
Hidden: TypeAlias = Any


@dataclass(frozen=True)
class BlockInputs:
    """What the first block of one forward pass receives, and what every block receives besides.

    Attributes:
        hidden: the first hidden states.
        conditioning: the rest; the family knows its parts.
    """

    hidden: Hidden
    conditioning: tuple[torch.Tensor | tuple[torch.Tensor, ...] | None, ...]


class Family(Protocol):
    """A backbone family. One module in ``prophy.backbones`` implements it for each.

    ``describe`` returns the part of a transformer's configuration that a branch depends on, and refuses transformers
    that no branch fits (ValueError); the methods that take ``config`` take that part.
    """

    name: str

    def describe(self, transformer: nn.Module) -> dict: ...
    def width(self, config: dict) -> int: ...
    def channels(self, config: dict) -> int: ...
    def text_dim(self, config: dict) -> int: ...
    def num_blocks(self, config: dict) -> int: ...
    def build_embedders(self, config: dict) -> nn.ModuleDict: ...
    def build_block(self, config: dict) -> nn.Module: ...
    def blocks(self, transformer: nn.Module) -> nn.ModuleList: ...
    def copy_embedders(self, transformer: nn.Module, embedders: nn.ModuleDict) -> None: ...
    def embed(
        self, embedders: nn.ModuleDict, latents_BCTHW: torch.Tensor, timestep: torch.Tensor, text_BLD: torch.Tensor
    ) -> BlockInputs: ...
    def run_block(self, block: nn.Module, hidden: Hidden, inputs: BlockInputs) -> Hidden: ...
    def run_refined_block(
        self,
        block: nn.Module,
        hidden: Hidden,
        inputs: BlockInputs,
        refine: Callable[[torch.Tensor], torch.Tensor],
    ) -> Hidden: ...
    def video_tokens(self, hidden: Hidden) -> torch.Tensor: ...
    def add_residual(self, output: Hidden, residual_BND: torch.Tensor) -> Hidden: ...
    def run_transformer(
        self, transformer: nn.Module, latents_BCTHW: torch.Tensor, timestep: torch.Tensor, text_BLD: torch.Tensor
    ) -> torch.Tensor: ...
    def call_arguments(self, args: tuple, kwargs: dict) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]: ...


FAMILIES: dict[str, Family] = {}


def register(family: Family) -> Family:
    """Make a family known to :class:`~prophy.branch.model.ProPhyBranch`."""
    FAMILIES[family.name] = family
    return family


def family_of(name: str) -> Family:
    """Look a family up.

    Raises:
        ValueError: not registered.
    """
    if name not in FAMILIES:
        known = ", ".join(FAMILIES) or "none yet: import prophy.backbones first"
        raise ValueError(f"unknown backbone family {name!r}: use one of {known}")
    return FAMILIES[name]


def same_setting(one: Any, other: Any) -> bool:
    """Whether two values of configurations are equal; JSON turns tuples into lists."""
    return _plain(one) == _plain(other)


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


def default_sites(blocks: int) -> list[int]:
    """Blocks with a Physical Block beside them in our default shape: every fifth, and the last (ours)."""
    return sorted({*range(0, blocks, 5), blocks - 1})
