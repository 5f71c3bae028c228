"""A further backbone, as somebody would add it: a transformer and a pipeline of its own, and what ProPhy asks of them.

``TOY_FACTS`` is what a file of ``prophy/catalogue/`` would hold, ``ToyFamily`` one of ``prophy/backbones/``. Tokens are
single latent cells; they attend to each other and to the prompt's tokens at once.
"""

from __future__ import annotations

from functools import partial

import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler, ModelMixin
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models import CacheMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.pipelines.wan.pipeline_output import WanPipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from diffusers.video_processor import VideoProcessor
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from prophy.backbones import StepInputs
from prophy.backbones.pipeline import ProPhyPipeline
from prophy.branch import ProPhyBranch
from prophy.branch.family import BlockInputs
from prophy.catalogue import FamilyFacts
from prophy.catalogue.limits import ClipRules

# --- what is published: a transformer and a pipeline ------------------------------------------------------------------


class ToyBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))
        self.ff = nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def attend(self, x_BND: torch.Tensor, text_BLD: torch.Tensor, time_BD: torch.Tensor) -> torch.Tensor:
        normal = self.norm1(x_BND) + time_BD[:, None]
        everything = torch.cat([normal, text_BLD], dim=1)
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_q(normal), self.to_k(everything), self.to_v(everything))
        )
        return x_BND + self.to_out(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))

    def forward(self, x_BND: torch.Tensor, text_BLD: torch.Tensor, time_BD: torch.Tensor) -> torch.Tensor:
        x_BND = self.attend(x_BND, text_BLD, time_BD)
        return x_BND + self.ff(self.norm2(x_BND))


def make_embedders(channels: int, width: int, text_dim: int) -> nn.ModuleDict:
    sizes = {"cell": channels, "place": 3, "time": 1, "text": text_dim}
    return nn.ModuleDict({name: nn.Linear(size, width) for name, size in sizes.items()})


def embed(parts: nn.ModuleDict, latents_BCTHW: torch.Tensor, timestep_B: torch.Tensor, text_BLD: torch.Tensor) -> tuple:
    device, dtype = latents_BCTHW.device, latents_BCTHW.dtype
    axes = [torch.linspace(0, 1, size, device=device, dtype=dtype) for size in latents_BCTHW.shape[2:]]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 2)
    x_BND = parts["cell"](latents_BCTHW.flatten(2).transpose(1, 2)) + parts["place"](places)
    return x_BND, parts["text"](text_BLD), parts["time"]((timestep_B[:, None] / 1000).to(dtype))


class ToyTransformer(ModelMixin, ConfigMixin, CacheMixin):
    @register_to_config
    def __init__(self, channels: int = 4, width: int = 32, heads: int = 2, layers: int = 3, text_dim: int = 24) -> None:
        super().__init__()
        self.embedders = make_embedders(channels, width, text_dim)
        self.blocks = nn.ModuleList(ToyBlock(width, heads) for _ in range(layers))
        self.out = nn.Linear(width, channels)

    def forward(self, hidden_states, timestep, encoder_hidden_states, return_dict: bool = True):
        x_BND, *conditioning = embed(self.embedders, hidden_states, timestep, encoder_hidden_states)
        for block in self.blocks:
            x_BND = block(x_BND, *conditioning)
        velocity = self.out(x_BND).transpose(1, 2).unflatten(2, hidden_states.shape[2:])
        return Transformer2DModelOutput(velocity) if return_dict else (velocity,)


class ToyPipeline(DiffusionPipeline):
    """Called as the stock pipelines are, with as much as they share."""

    model_cpu_offload_seq = "text_encoder->transformer->vae"

    def __init__(self, tokenizer, text_encoder, vae, transformer, scheduler) -> None:
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, transformer=transformer, scheduler=scheduler
        )

    def encode_prompt(self, prompt, do_classifier_free_guidance=True, max_sequence_length=512):
        texts = [prompt] if isinstance(prompt, str) else prompt
        read = self.tokenizer(texts, padding="max_length", max_length=max_sequence_length, return_tensors="pt").to(
            self._execution_device
        )
        hidden = self.text_encoder(read.input_ids, attention_mask=read.attention_mask).last_hidden_state
        hidden = hidden * read.attention_mask[..., None]
        if not do_classifier_free_guidance:
            return hidden, None
        return hidden, self.encode_prompt([""] * len(texts), False, max_sequence_length)[0]

    @torch.no_grad()
    def __call__(
        self,
        prompt,
        height,
        width,
        num_frames,
        num_inference_steps,
        guidance_scale,
        generator,
        output_type,
        max_sequence_length,
        callback_on_step_end,
    ):
        both = self.encode_prompt(prompt, guidance_scale > 1, max_sequence_length)
        texts = dict(zip(("cond", "uncond"), both, strict=True))
        grid = 1 + (num_frames - 1) // 4, height // 8, width // 8
        shape = len(texts["cond"]), self.transformer.config.channels, *grid
        latents = randn_tensor(shape, generator, self._execution_device, self.transformer.dtype)
        self.scheduler.set_timesteps(num_inference_steps, device=latents.device)
        for i, t in enumerate(self.scheduler.timesteps):
            said = {}
            for context, text in texts.items():
                if text is not None:
                    with self.transformer.cache_context(context):
                        said[context] = self.transformer(
                            hidden_states=latents,
                            timestep=t.expand(len(latents)),
                            encoder_hidden_states=text,
                            return_dict=False,
                        )[0]
            velocity = said["cond"]
            if "uncond" in said:
                velocity = said["uncond"] + guidance_scale * (said["cond"] - said["uncond"])
            latents = self.scheduler.step(velocity, t, latents, return_dict=False)[0]
            callback_on_step_end(self, i, t, {"latents": latents})
        mean, std = (
            torch.tensor(values).view(-1, 1, 1, 1)
            for values in (self.vae.config.latents_mean, self.vae.config.latents_std)
        )
        video = self.vae.decode(latents * std.to(latents) + mean.to(latents), return_dict=False)[0]
        self.maybe_free_model_hooks()
        return WanPipelineOutput(frames=VideoProcessor().postprocess_video(video, output_type=output_type))


# --- what prophy/catalogue/ would hold --------------------------------------------------------------------------------


def clip_rules(transformer: dict, vae: dict, tokenizer_limit: float) -> ClipRules:
    return ClipRules(
        channels=transformer.get("channels", 4),
        patch=1,
        cell=8,
        size_step=8,
        frame_step=4,
        text_tokens=int(min(tokenizer_limit, 512)),
        frames_first=False,
    )


TOY_FACTS = FamilyFacts("ToyTransformer", clip_rules)


# --- what prophy/backbones/ would hold --------------------------------------------------------------------------------


class ProPhyToyPipeline(ProPhyPipeline, ToyPipeline):
    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        text_encoder: UMT5EncoderModel,
        vae: ModelMixin,
        transformer: ToyTransformer,
        scheduler: FlowMatchEulerDiscreteScheduler,
        branch: ProPhyBranch | None = None,
    ) -> None:
        super().__init__(tokenizer, text_encoder, vae, transformer, scheduler)
        self.add_branch(branch)


class ToyFamily:
    facts = TOY_FACTS
    name = facts.transformer_class
    transformer_class = ToyTransformer
    stock_pipeline_class = ToyPipeline
    pipeline_class = ProPhyToyPipeline
    lora_targets = ()
    passes_together = False

    def describe(self, transformer):
        return {key: value for key, value in transformer.config.items() if not key.startswith("_")}

    def width(self, config):
        return config["width"]

    def channels(self, config):
        return config["channels"]

    def text_dim(self, config):
        return config["text_dim"]

    def num_blocks(self, config):
        return config["layers"]

    def build_embedders(self, config):
        return make_embedders(config["channels"], config["width"], config["text_dim"])

    def build_block(self, config):
        return ToyBlock(config["width"], config["heads"])

    def blocks(self, transformer):
        return transformer.blocks

    def copy_embedders(self, transformer, embedders):
        embedders.load_state_dict(transformer.embedders.state_dict())

    def embed(self, embedders, latents_BCTHW, timestep, text_BLD):
        x_BND, *conditioning = embed(embedders, latents_BCTHW, timestep, text_BLD)
        return BlockInputs(x_BND, tuple(conditioning))

    def run_block(self, block, hidden, inputs):
        return block(hidden, *inputs.conditioning)

    def run_refined_block(self, block, hidden, inputs, refine):
        hidden = refine(block.attend(hidden, *inputs.conditioning))
        return hidden + block.ff(block.norm2(hidden))

    def video_tokens(self, hidden):
        return hidden

    def add_residual(self, output, residual_BND):
        return output + residual_BND.to(output.dtype)

    def run_transformer(self, transformer, latents_BCTHW, timestep, text_BLD):
        return transformer(latents_BCTHW, timestep, text_BLD, return_dict=False)[0]

    def call_arguments(self, args, kwargs):
        names = "hidden_states", "timestep", "encoder_hidden_states"
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        return tuple(given[name] for name in names)

    def step_inputs(self, transformer, rules, clip, pipeline_config, device):
        zeros = partial(torch.zeros, dtype=transformer.dtype, device=device)
        text = 1, rules.text_tokens, transformer.config.text_dim
        arguments = {
            "hidden_states": zeros(1, *rules.denoised_shape(clip)),
            "timestep": zeros(1, dtype=torch.float32),
            "encoder_hidden_states": zeros(text),
        }
        return StepInputs(arguments, [zeros(2, *rules.denoised_shape(clip)), zeros(text)])


TOY = ToyFamily()


def toy_pipeline(tokenizer: PreTrainedTokenizerBase, text_encoder: UMT5EncoderModel, vae: ModelMixin) -> ToyPipeline:
    """Random weights, none of them zero."""
    torch.manual_seed(11)
    return ToyPipeline(tokenizer, text_encoder, vae, ToyTransformer().eval(), FlowMatchEulerDiscreteScheduler())
