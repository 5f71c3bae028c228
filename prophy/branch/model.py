"""The physical branch: Semantic Expert Block → Physical Blocks → Refinement Expert Block in the last one (section 3).

It reads the noisy latent, the timestep and the text, never the backbone's hidden states; so it runs once before the
backbone and returns one residual for each injection site, and its routing.

Shapes: B batch, C latent channels, T latent frames, H height, W width, N tokens, D width, L text length, P phenomena.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ClassVar

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.attention import AttentionMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from prophy import phenomena
from prophy.branch.card import write_card
from prophy.branch.family import BlockInputs, Hidden, family_of, same_setting
from prophy.branch.precision import without_autocast
from prophy.branch.refinement import RefinementExpertBlock, TokenRouting
from prophy.branch.semantic import SemanticExpertBlock
from prophy.routing.trace import Routing

MAX_EXPERTS = 256  #: refinement experts a trace can name


class ProPhyBranch(ModelMixin, ConfigMixin, PeftAdapterMixin, AttentionMixin):
    """The trainable physics beside a frozen backbone; its own checkpoint, its own config.

    Build it with :meth:`from_transformer`; reopen it with ``from_pretrained``.

    Args:
        family: name of the backbone family.
        backbone: the backbone's own configuration.
        sites: indices of the backbone blocks that are copied, increasing.
        injections: those of the sites after which a residual is added; None: all of them, as in the paper's figure. The
            refinement experts act in the last Physical Block, so what is injected before it has passed them by.
        num_semantic_experts: E_s.
        num_refinement_experts: E_r.
        top_k: experts a token uses.
        reference_grid: (T, H, W) of the basis maps, in latent cells.
        map_hidden: width of the MLP that reads P' from the routing.
        refinement_form: see :class:`prophy.branch.refinement.RefinementExpertBlock`. The default here is that of saved
            branches which do not name one; :meth:`from_transformer` builds the paper's.
        phenomena_version: see :data:`prophy.phenomena.VERSION`.

    Raises:
        ValueError: a configuration that cannot work, or was made for another list of phenomena.
    """

    _supports_gradient_checkpointing = True
    # Compared with the dotted parts of each parameter's name: "norm" would keep CogVideoX's too, which meet bfloat16.
    _keep_in_fp32_modules: ClassVar[list[str]] = [
        "router",
        "scale_shift_table",
        "time_embedder",
        "map_head",
        "coarse_head",
    ]

    @register_to_config
    def __init__(
        self,
        family: str,
        backbone: dict[str, Any],
        sites: list[int],
        num_semantic_experts: int = 32,
        num_refinement_experts: int = 8,
        top_k: int = 2,
        reference_grid: Sequence[int] = (5, 8, 8),
        map_hidden: int = 64,
        phenomena_version: str = phenomena.VERSION,
        injections: list[int] | None = None,
        refinement_form: str = "residual",
    ) -> None:
        super().__init__()
        if phenomena_version != phenomena.VERSION:
            raise ValueError(f"branch of phenomena {phenomena_version!r}: this release knows {phenomena.VERSION!r}")
        for name, value in (("num_semantic_experts", num_semantic_experts), ("top_k", top_k)):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if top_k > num_refinement_experts:
            raise ValueError(f"top_k={top_k} exceeds num_refinement_experts={num_refinement_experts}: lower top_k")
        if num_refinement_experts > MAX_EXPERTS:
            raise ValueError(
                f"num_refinement_experts={num_refinement_experts} must be at most {MAX_EXPERTS}: an id is a byte"
            )
        if len(reference_grid) != 3 or min(reference_grid) < 1:
            raise ValueError(f"reference_grid={list(reference_grid)} must be three positive sizes: (T, H, W)")
        self.family = family_of(family)
        depth = self.family.num_blocks(backbone)
        if not sites or sorted(set(sites)) != list(sites) or sites[0] < 0 or sites[-1] >= depth:
            raise ValueError(f"sites={list(sites)} must increase within 0..{depth - 1}, the backbone's blocks")
        self.injections = list(sites) if injections is None else list(injections)  #: in the order of the residuals
        if not self.injections or [site for site in sites if site in self.injections] != self.injections:
            raise ValueError(f"injections={self.injections} must increase and be among the sites {list(sites)}")
        width = self.family.width(backbone)
        text_dim = self.family.text_dim(backbone)
        channels = self.family.channels(backbone)
        time, rows, columns = reference_grid
        self.semantic = SemanticExpertBlock(num_semantic_experts, channels, text_dim, (time, rows, columns))
        self.coarse_head = nn.Linear(num_semantic_experts, len(phenomena.PHENOMENA), bias=False)
        self.embedders = self.family.build_embedders(backbone)
        self.blocks = nn.ModuleList(self.family.build_block(backbone) for _ in sites)
        self.refinement = RefinementExpertBlock(width, num_refinement_experts, top_k, refinement_form)
        self.map_head = nn.Sequential(
            nn.Linear(num_refinement_experts, map_hidden), nn.SiLU(), nn.Linear(map_hidden, len(phenomena.PHENOMENA))
        )
        # zero at the start, so that an untrained branch leaves the backbone's output bit-identical
        self.projections = nn.ModuleList(nn.Linear(width, width) for _ in self.injections)
        for projection in self.projections:
            nn.init.zeros_(projection.weight)
            nn.init.zeros_(projection.bias)
        self.gradient_checkpointing = False

    @classmethod
    def from_transformer(cls, transformer: nn.Module, sites: list[int], **config: Any) -> ProPhyBranch:
        """Copy the embedders and the chosen blocks of a pretrained transformer.

        Args:
            transformer: a stock diffusers transformer of a registered family.
            sites: which of its blocks.
            config: the other arguments of the class.

        Raises:
            ValueError: the transformer's family is not supported, or the configuration cannot work.
        """
        family = family_of(type(transformer).__name__)
        branch = cls(family.name, family.describe(transformer), list(sites), **{"refinement_form": "mixture", **config})
        family.copy_embedders(transformer, branch.embedders)
        for site, block in zip(sites, branch.blocks, strict=True):
            block.load_state_dict(family.blocks(transformer)[site].state_dict())
        return branch

    @classmethod
    def from_pretrained(cls, path: str | Path, **kwargs: Any) -> ProPhyBranch:
        """Open a saved branch; every weight must be there and belong. Arguments as in diffusers.

        Raises:
            ValueError: weights that are missing, left over or of another shape. One line.
            OSError: no such folder, or weights that cannot be read. One line.
        """
        wants_report = kwargs.pop("output_loading_info", False)
        branch, report = super().from_pretrained(path, output_loading_info=True, **kwargs)
        for kind in ("missing", "unexpected"):
            if keys := sorted(report[f"{kind}_keys"]):
                more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
                raise ValueError(f"the branch in {path} has {kind} weights: {', '.join(keys[:3])}{more}")
        return (branch, report) if wants_report else branch  # type: ignore[return-value]  # as diffusers has it

    @wraps(ModelMixin.save_pretrained)  # the pipelines read its signature
    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            self._write_card(save_directory)

    def _upload_folder(self, working_dir: str | Path, *args: Any, **kwargs: Any) -> str:
        self._write_card(working_dir)  # where push_to_hub has just put a card that says nothing
        return super()._upload_folder(working_dir, *args, **kwargs)

    def _write_card(self, folder: str | Path) -> None:
        write_card(folder, self.config, self.family, sum(p.numel() for p in self.parameters()))

    def check_fits(self, transformer: nn.Module) -> None:
        """Refuse a backbone this branch was not made for.

        Raises:
            ValueError: one line that says what differs.
        """
        name = type(transformer).__name__
        if name != self.config.family:
            raise ValueError(
                f"this branch belongs to a {self.config.family}, not a {name}: load it beside its own base"
            )
        theirs = self.family.describe(transformer)
        for key, value in self.config.backbone.items():
            if not same_setting(theirs.get(key), value):
                raise ValueError(
                    f"this branch was made for a backbone with {key}={value}, this one has {theirs.get(key)}: "
                    "load it beside its own base"
                )

    def forward(
        self,
        latents_BCTHW: torch.Tensor,
        timestep: torch.Tensor,
        text_BLD: torch.Tensor,
        semantic_scale: torch.Tensor | None = None,
        refinement_scale: torch.Tensor | None = None,
        forced_N: torch.Tensor | None = None,
    ) -> tuple[list[torch.Tensor], Routing]:
        """Read the physics.

        Args:
            latents_BCTHW: the noisy latent X.
            timestep: as the backbone takes it.
            text_BLD: prompt embeddings, zero after the prompt's end.
            semantic_scale: ``(E_s,)`` steering, see :meth:`~prophy.branch.semantic.SemanticExpertBlock.forward`.
            refinement_scale: ``(E_r,)`` steering, see :meth:`~prophy.branch.refinement.RefinementExpertBlock.route`.
            forced_N: experts forced on tokens, see :meth:`~prophy.branch.refinement.RefinementExpertBlock.route`.

        Returns:
            One residual ``(B, N, D)`` for each of ``injections``, and the routing.
        """
        enhanced, logits_BS, weights_BS = self.semantic(latents_BCTHW, text_BLD, semantic_scale)
        inputs = self.family.embed(self.embedders, enhanced, timestep, text_BLD)
        hidden, residuals = inputs.hidden, []
        projections = iter(self.projections)
        routed: TokenRouting | None = None
        for site, block in zip(self.config.sites, self.blocks, strict=True):
            last = block is self.blocks[-1]
            step = self._refined if last else self._plain_block
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                result = self._gradient_checkpointing_func(step, block, hidden, inputs, refinement_scale, forced_N)
            else:
                result = step(block, hidden, inputs, refinement_scale, forced_N)
            hidden, routed = result
            if site in self.injections:
                residuals.append(next(projections)(self.family.video_tokens(hidden)))
        assert routed is not None, "the last block is refined"
        routing = Routing(
            semantic_logits_BS=logits_BS,
            semantic_weights_BS=weights_BS,
            probs_BNE=routed.probs_BNE,
            topk_ids_BNK=routed.topk_ids_BNK,
            topk_weights_BNK=routed.topk_weights_BNK,
            phenomenon_map_BNP=self.phenomenon_map(routed.probs_BNE),
        )
        return residuals, routing

    def phenomenon_map(self, probs_BNE: torch.Tensor) -> torch.Tensor:
        """``P' = MLP(ρ_r)`` (eq. 5), float32 ``(B, N, P)``."""
        x = probs_BNE.float()
        with without_autocast(x):
            for layer in self.map_head:
                linear = isinstance(layer, nn.Linear)
                x = nn.functional.linear(x, layer.weight.float(), layer.bias.float()) if linear else layer(x)
        return x

    def labels_from_semantics(self, weights_BS: torch.Tensor) -> torch.Tensor:
        """The linear map from the semantic router's weights to label space (eq. 3), float32 ``(B, P)``."""
        with without_autocast(weights_BS):
            return nn.functional.linear(weights_BS.float(), self.coarse_head.weight.float())

    def _plain_block(
        self,
        block: nn.Module,
        hidden: Hidden,
        inputs: BlockInputs,
        refinement_scale: torch.Tensor | None,
        forced_N: torch.Tensor | None,
    ) -> tuple[Hidden, None]:
        return self.family.run_block(block, hidden, inputs), None

    def _refined(
        self,
        block: nn.Module,
        hidden: Hidden,
        inputs: BlockInputs,
        refinement_scale: torch.Tensor | None,
        forced_N: torch.Tensor | None,
    ) -> tuple[Hidden, TokenRouting]:
        routed: TokenRouting | None = None

        def refine(x: torch.Tensor) -> torch.Tensor:
            nonlocal routed
            x, routed = self.refinement(x, refinement_scale, forced_N)
            return x

        hidden = self.family.run_refined_block(block, hidden, inputs, refine)
        assert routed is not None, "a family calls refine once"
        return hidden, routed
