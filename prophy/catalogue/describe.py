"""A model described by its configuration files, before any weights are read (no torch).

A published model, by its name here or its hub id, is described without asking anyone; a folder by its own files; any
other hub id by the same files there, which the hub's client keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prophy.catalogue.check import check_branch, check_config
from prophy.catalogue.families import facts_of, is_registered
from prophy.catalogue.limits import LONGEST_PROMPT_TOKENS, ClipRules, GenerationDefaults
from prophy.catalogue.published import PUBLISHED, PublishedModel, published_like
from prophy.schema import read_object

BRANCH_FOLDER = "branch"


@dataclass(frozen=True)
class ModelConfig:
    """The configurations of a text-to-video model.

    Attributes:
        name: the folder's, or as its authors write it, or the hub id; never a path of this machine.
        transformer_class: class name of the transformer.
        transformer: its configuration, as all below without what its class takes by default.
        transformers: how many of them, one after the other along the noise.
        vae_class: diffusers class of the autoencoder.
        vae: its configuration.
        text_encoder_class: transformers class of the text encoder.
        text_encoder: its configuration.
        tokenizer_limit: the most tokens that the tokenizer gives.
        pipeline_config: settings of the pipeline, as ``model_index.json`` holds them beside the parts.
        branch: the branch's configuration; None without one.
    """

    name: str
    transformer_class: str
    transformer: Mapping[str, Any]
    transformers: int
    vae_class: str
    vae: Mapping[str, Any]
    text_encoder_class: str
    text_encoder: Mapping[str, Any]
    tokenizer_limit: float
    pipeline_config: Mapping[str, Any]
    branch: Mapping[str, Any] | None

    @property
    def rules(self) -> ClipRules:
        """What it asks of a clip."""
        return facts_of(self.transformer_class).clip_rules(self.transformer, self.vae, self.tokenizer_limit)

    @property
    def published(self) -> PublishedModel | None:
        """The published model of this shape: itself, or what it is a fine-tune of."""
        return published_like(self.transformer_class, self.transformer, self.transformers)

    @property
    def defaults(self) -> GenerationDefaults | None:
        """The clip it was made for, as far as its shape tells."""
        return None if self.published is None else self.published.defaults


def describe_model(model: str | Path, branch: str | Path | None = None) -> ModelConfig:
    """Describe a model and the branch beside it.

    Args:
        model: a name in :data:`prophy.catalogue.published.PUBLISHED`, a diffusers folder or a hub id.
        branch: a folder or hub id; default: the ``branch`` folder inside a local ``model``, if there is one.

    Raises:
        ValueError: no such model or branch, files that are damaged, or a model of another kind. One line.
    """
    physics = None if branch is None else read_branch(branch)
    for key, known in PUBLISHED.items():
        if str(model) in (key, known.repo):
            return ModelConfig(
                name=known.name,
                transformer_class=known.transformer_class,
                transformer=known.transformer,
                transformers=known.transformers,
                vae_class=known.vae_class,
                vae=known.vae,
                text_encoder_class=known.text_encoder_class,
                text_encoder=known.text_encoder,
                tokenizer_limit=known.text_tokens,
                pipeline_config=known.pipeline_config,
                branch=physics,
            )
    if branch is None and is_local(model) and (Path(model) / BRANCH_FOLDER / "config.json").is_file():
        physics = read_branch(Path(model) / BRANCH_FOLDER)
    index = _read(model, "model_index.json", "model")

    def part(name: str, library: str) -> tuple[str, dict[str, Any]]:
        origin, class_name = _named(index, name)
        if class_name is None or (origin != library and not is_registered(class_name)):
            raise ValueError(f"{model} has no {name} of a stock class: give the folder of a text-to-video pipeline")
        return class_name, _read(model, f"{name}/config.json", name)

    transformer_class, transformer = part("transformer", "diffusers")
    vae_class, vae = part("vae", "diffusers")
    text_encoder_class, text_encoder = part("text_encoder", "transformers")
    try:
        tokenizer = _read(model, "tokenizer/tokenizer_config.json", "tokenizer")
    except ValueError:
        tokenizer = {}
    described = ModelConfig(
        name=Path(model).resolve().name if is_local(model) else str(model),
        transformer_class=transformer_class,
        transformer=transformer,
        transformers=1 if _named(index, "transformer_2")[0] is None else 2,
        vae_class=vae_class,
        vae=vae,
        text_encoder_class=text_encoder_class,
        text_encoder=text_encoder,
        tokenizer_limit=_limit(tokenizer.get("model_max_length")),
        pipeline_config={name: value for name, value in index.items() if not _is_part_or_note(name, value)},
        branch=physics,
    )
    try:
        _ = described.rules  # refuses a family that is not registered
    except (TypeError, KeyError, IndexError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(f"{model} is damaged (its parts do not fit together: {error}): copy it again") from None
    return described


def read_branch(branch: str | Path) -> dict[str, Any]:
    """The configuration of a branch: of a folder or a hub id.

    Raises:
        ValueError: no branch there, or its file holds what cannot be. One line.
    """
    return _read(branch, "config.json", "branch")


def check_part(folder: Path) -> None:
    """Check the configuration of a part in a local folder, if it has one.

    Raises:
        ValueError: it holds what cannot be. One line.
    """
    if (folder / "config.json").is_file():
        _read(folder, "config.json", folder.name)


def _named(index: dict[str, Any], part: str) -> tuple[str | None, str | None]:
    """Library and class of a part in ``model_index.json``; None for one that is not there, or not so named."""
    entry = index.get(part)
    if not isinstance(entry, list) or len(entry) != 2 or not all(isinstance(name, str) for name in entry):
        return None, None
    return entry[0], entry[1]


def _limit(said: object) -> float:
    """The most tokens of a tokenizer; one without a limit says 10^30."""
    if isinstance(said, int | float) and not isinstance(said, bool) and said >= 1:
        return float(said)
    return LONGEST_PROMPT_TOKENS


def hub_id(model: str | Path) -> str | Path:
    """The hub id of a published model's name; anything else as it is."""
    return PUBLISHED[model].repo if isinstance(model, str) and model in PUBLISHED else model


def is_local(path: str | Path) -> bool:
    """Whether this is a folder of this machine, or looks like one; else it is a hub id."""
    return isinstance(path, Path) or str(path).startswith((".", "/", "~")) or Path(path).exists()


def _is_part_or_note(name: str, value: Any) -> bool:
    """Whether an entry of ``model_index.json`` names a part, or is diffusers' own note."""
    return name.startswith("_") or isinstance(value, list)


def _read(origin: str | Path, name: str, kind: str) -> dict[str, Any]:
    """A JSON file of a folder or a hub id."""
    path = Path(origin) / name
    if not is_local(origin):
        path = _from_hub(str(origin), name, kind)
    elif not path.is_file():
        raise ValueError(f"{path.parent} holds no {kind} ({path.name} is missing): give a {kind} folder or a hub id")
    cure = "write it again"
    config = read_object(path, cure)
    if kind == "branch":
        check_branch(config, path, cure)
    elif kind != "tokenizer":  # whose file may say that it has no limit, by a huge number, and lists every token
        check_config(config, path, cure)
    return config


def _from_hub(repo: str, name: str, kind: str) -> Path:
    if repo.count("/") != 1:
        raise ValueError(
            f"no {kind} {repo!r}: use one of {', '.join(PUBLISHED)}, or a {kind} folder or hub id"
            if kind == "model"
            else f"{repo} holds no {kind}: give a {kind} folder or a hub id"
        )
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(repo, name))
    except Exception as error:  # the hub's client raises its own, requests' and the system's
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"cannot read {name} of {repo} from the hub: {reason}") from None
