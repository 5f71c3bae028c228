"""The autoencoder and the text encoder that made a cache, by their files: a base with others cannot learn from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from prophy.files import files_sha256, visible

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_INDEX, _WEIGHTS = "model_index.json", ".safetensors"
_ENCODERS, _BESIDE = ("vae", "text_encoder"), ("tokenizer",)
_READ = (_WEIGHTS, ".json", ".model", ".txt")


def encoders_sha256(base: str | Path) -> str:
    """A digest of the files of autoencoder, text encoder and tokenizer, without opening them.

    Args:
        base: a diffusers folder, or a hub id that was downloaded.

    Returns:
        64 hexadecimal digits; empty where their files do not all lie on this machine.
    """
    folder = _folder(base)
    if folder is None or not all(visible(folder / part, f"*{_WEIGHTS}") for part in _ENCODERS):
        return ""
    files = [path for part in (*_ENCODERS, *_BESIDE) for path in _files(folder / part)]
    return files_sha256(folder, files)


def encoders_of(pipeline: DiffusionPipeline) -> str:
    """:func:`encoders_sha256` of the folder that a pipeline's were opened from; empty if not from one."""
    origins = (getattr(getattr(pipeline, part).config, "_name_or_path", "") for part in _ENCODERS)
    folders = {Path(str(origin)).parent for origin in origins if origin}
    return encoders_sha256(folders.pop()) if len(folders) == 1 else ""


def _folder(base: str | Path) -> Path | None:
    if (Path(base) / _INDEX).is_file():
        return Path(base)
    try:
        found = try_to_load_from_cache(str(base), _INDEX)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def _files(part: Path) -> list[Path]:
    """Without the weights of variants, where there are plain ones."""
    files = [path for path in visible(part) if path.suffix in _READ and path.is_file()]
    plain = [path for path in files if path.suffix == _WEIGHTS and "." not in re.sub(r"-\d+-of-\d+$", "", path.stem)]
    return [path for path in files if path.suffix != _WEIGHTS or path in plain or not plain]
