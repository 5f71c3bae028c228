"""One interface to the vision-language families: prompts as ids, positions, and where the video tokens are."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from prophy.annotation.clips import PackedClip, PatchSizes
from prophy.annotation.config import AnnotationConfig
from prophy.annotation.families import TURN_END, VIDEO_TOKEN, family_of


class VisionLanguageModel:
    """A transformers model and its tokenizer.

    Args:
        model: a ``…ForConditionalGeneration`` of one of the families.
        tokenizer: the tokenizer it came with, or a processor that holds it.

    Attributes:
        family: what differs.
        sizes: patch, merge and temporal sizes, from the model's configuration.
        attention_layers: decoder layers that have full attention, so that an answer's row sees every video token.
        stop_ids: tokens that end an answer.

    Raises:
        ValueError: another family, a tokenizer of another model, or a decoder without full attention.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.family = family_of(model.config.model_type)
        self.model = model.eval()
        self.tokenizer = getattr(tokenizer, "tokenizer", tokenizer)
        vision = model.config.vision_config
        self.sizes = PatchSizes(vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size)
        kinds = (
            getattr(self.text_config, "layer_types", None) or ["full_attention"] * self.text_config.num_hidden_layers
        )
        self.attention_layers = tuple(i for i, kind in enumerate(kinds) if kind == "full_attention")
        if not self.attention_layers:
            raise ValueError(
                "every layer of this model is linear or local, so it has no maps: use one with full attention"
            )
        found = self.tokenizer.convert_tokens_to_ids(VIDEO_TOKEN)
        if found != self.video_id:
            raise ValueError(
                f"the tokenizer's {VIDEO_TOKEN} is {found}, the model's {self.video_id}: use the tokenizer it came with"
            )
        stops = model.generation_config.eos_token_id
        stops = [] if stops is None else [stops] if isinstance(stops, int) else list(stops)
        self.stop_ids = frozenset([*stops, self.tokenizer.convert_tokens_to_ids(TURN_END)])

    @property
    def text_config(self) -> PreTrainedConfig:
        """The configuration that the decoder's attention layers read."""
        return self.model.model.language_model.config

    @property
    def video_id(self) -> int:
        return self.model.config.video_token_id

    def layers(self, config: AnnotationConfig) -> tuple[int, ...]:
        """The decoder layers that a configuration means.

        Raises:
            ValueError: layers or heads that this model does not have.
        """
        own = self.attention_layers
        if config.layers is not None and (missing := sorted(set(config.layers) - set(own))):
            raise ValueError(f"layers {missing} do not exist or have no full attention: choose from {list(own)}")
        heads = self.text_config.num_attention_heads
        if config.heads is not None and not all(0 <= head < heads for head in config.heads):
            raise ValueError(f"heads {list(config.heads)} do not all exist: choose from 0 to {heads - 1}")
        return own[len(own) // 2 :] if config.layers is None else config.layers

    def prefix_ids(self, clip: PackedClip) -> list[int]:
        """Token ids of a prompt up to the end of the video, every video token in place."""
        ids = self._encode(self.family.prefix(clip.seconds))
        tokens = clip.grid[0] * clip.grid[1] * clip.grid[2]
        span = tokens // ids.count(self.video_id)
        return [each for i in ids for each in ([i] * span if i == self.video_id else [i])]

    def question_ids(self, question: str) -> list[int]:
        """Token ids of a prompt from the end of the video to the start of the answer."""
        return self._encode(self.family.question(question))

    def positions(self, ids: Sequence[int], clip: PackedClip) -> tuple[torch.Tensor, int]:
        """Rotary positions of a whole prompt, as the model's own ``generate`` gives them.

        Returns:
            Long ``(3, L)`` (time, row, column), and what to add to a later token's index to get its positions.
        """
        ids_1L = torch.tensor([ids])
        timed = {"second_per_grid_ts": [clip.seconds_per_patch]} if self.family.timed_positions else {}
        positions, deltas = self.model.model.get_rope_index(
            ids_1L,
            mm_token_type_ids=(ids_1L == self.video_id).int() * 2,  # 2: video
            video_grid_thw=torch.tensor([clip.patch_grid]),
            **timed,
        )
        return positions[:, 0], int(deltas[0, 0])

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]
