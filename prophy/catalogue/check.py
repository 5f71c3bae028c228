"""Configurations that come from files: types and sizes, checked before anything is built from them (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from prophy.schema import complaint, shown

_Size = Annotated[int, Field(ge=1, le=2**16)]
_Few = Annotated[int, Field(ge=0, le=64)]
_Layers = Annotated[int, Field(ge=1, le=512)]
_Sites = Annotated[list[Annotated[int, Field(ge=0, lt=512)]], Field(min_length=1, max_length=512)]
_Text = Annotated[str, Field(max_length=1000)]

#: Of transformers, autoencoders and text encoders. A field that is not here is bounded as any number, list or text.
_KNOWN: dict[str, Any] = {
    **dict.fromkeys(
        (
            *("attention_head_dim", "num_attention_heads", "num_heads", "in_channels", "out_channels", "text_dim"),
            *("text_embed_dim", "time_embed_dim", "freq_dim", "d_model", "d_kv", "rope_max_seq_len", "base_dim"),
            *("decoder_base_dim", "z_dim", "latent_channels", "max_text_seq_length", "sample_width"),
            *("sample_height", "sample_frames", "scale_factor_spatial", "scale_factor_temporal", "patch_size_t"),
        ),
        _Size,
    ),
    **dict.fromkeys(("num_layers", "num_decoder_layers"), _Layers),
    **dict.fromkeys(("num_res_blocks", "layers_per_block"), _Few),
    **dict.fromkeys(("ffn_dim", "d_ff"), Annotated[int, Field(ge=1, le=2**20)]),
    "vocab_size": Annotated[int, Field(ge=1, le=2**24)],
    "patch_size": Annotated[int, Field(ge=1, le=64)]
    | Annotated[list[Annotated[int, Field(ge=1, le=64)]], Field(min_length=3, max_length=3)],
    "dim_mult": Annotated[list[Annotated[int, Field(ge=1, le=64)]], Field(min_length=1, max_length=16)],
    "block_out_channels": Annotated[list[_Size], Field(min_length=1, max_length=16)],
    "temperal_downsample": Annotated[list[bool], Field(max_length=16)],
    "latents_mean": Annotated[list[float], Field(max_length=2**16)],
    "latents_std": Annotated[list[float], Field(max_length=2**16)],
}
#: Of a branch, which may leave none of them empty but ``injections``.
_BRANCH: dict[str, Any] = {
    "family": _Text,
    "backbone": dict[str, Any],
    "sites": _Sites,
    "num_semantic_experts": Annotated[int, Field(ge=1, le=4096)],
    "num_refinement_experts": Annotated[int, Field(ge=1, le=4096)],
    "top_k": Annotated[int, Field(ge=1, le=4096)],
    "reference_grid": Annotated[list[Annotated[int, Field(ge=1, le=1024)]], Field(min_length=3, max_length=3)],
    "map_hidden": _Size,
    "phenomena_version": _Text,
    "injections": _Sites | None,
    "refinement_form": _Text,
}
_STRICT = ConfigDict(strict=True, allow_inf_nan=False)
_DEEPEST, _LONGEST, _LARGEST = 8, 2**16, 2**31
#: Products of two fields that decide how much is built at once, and the largest that they may be.
_PRODUCTS = (
    (("attention_head_dim", "num_attention_heads"), 2**16),
    (("rope_max_seq_len", "attention_head_dim"), 2**24),
)


def check_config(config: Mapping[str, Any], path: Path, cure: str) -> None:
    """Refuse a model part's configuration that holds what its fields cannot be, or too much to be built.

    Args:
        config: as its file holds it.
        path: of the file, for the message.
        cure: for the message.

    Raises:
        ValueError: one line with the file, the field and its value.
    """
    try:
        _check_fields(config, {name: kind | None for name, kind in _KNOWN.items()})
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): {cure}") from None


def check_branch(config: Mapping[str, Any], path: Path, cure: str) -> None:
    """The same for a branch's configuration.

    Raises:
        ValueError: see :func:`check_config`.
    """
    try:
        _check_fields(config, _BRANCH)
        if missing := {"family", "backbone", "sites"} - config.keys():
            raise ValueError(f"{min(missing)} is missing")
        _check_fields(config["backbone"], {name: kind | None for name, kind in _KNOWN.items()})
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): {cure}") from None


def _check_fields(config: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for name, value in config.items():
        if name not in known:
            _check_bounds(name, value, _DEEPEST)
            continue
        try:
            TypeAdapter(list[known[name]], config=_STRICT).validate_python([value])
        except ValidationError as error:
            raise ValueError(f"{name}={shown(value)} {complaint(error)}") from None
    for names, most in _PRODUCTS:
        sizes = [config.get(name) for name in names]
        if None not in sizes and sizes[0] * sizes[1] > most:
            raise ValueError(f"{names[0]}={sizes[0]} times {names[1]}={sizes[1]} is more than {most}")


def _check_bounds(name: str, value: Any, depth: int) -> None:
    """Of a field that nobody knows: nothing in it may be huge."""
    if depth == 0:
        raise ValueError(f"{name} is nested too deeply")
    if isinstance(value, int | float) and not -_LARGEST <= value <= _LARGEST:
        raise ValueError(f"{name}={shown(value)} is out of all measure")
    if isinstance(value, str | list | dict) and len(value) > _LONGEST:
        raise ValueError(f"{name} is too long")
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inside:
        _check_bounds(name, one, depth - 1)
