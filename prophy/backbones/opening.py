"""What is checked of a model's parts before diffusers or transformers open them, and what is said when they cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import UMT5EncoderModel

from prophy.backbones.variants import variant_beside
from prophy.catalogue.describe import check_part
from prophy.files import open_regular, visible
from prophy.schema import parsed, read_object


@contextmanager
def part_opened(folder: str | Path) -> Iterator[None]:
    """Around the opening of one part: its folder is checked first, and whatever these libraries raise is one line.

    Args:
        folder: of the part; of a hub id only the failure is put into words.

    Raises:
        ValueError: it is damaged, was not copied whole, or holds another part; there is no memory for it, or a package
            is missing.
    """
    local = Path(folder)
    if local.is_dir():
        check_part(local)
        check_weights(local)
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError, ImportError) as error:  # another copy would not help
        raise ValueError(f"cannot open {folder}: {first_line(error)}") from error
    except Exception as error:  # a damaged tokenizer alone raises seven kinds
        raise ValueError(f"cannot open {folder}: {first_line(error)}; copy or download it again") from error


def open_text_encoder(folder: Path, dtype: torch.dtype | str = "auto") -> UMT5EncoderModel:
    """A small text encoder with every weight from its files: transformers would draw those that they lack by lot.

    Args:
        folder: of the part.
        dtype: of the weights; ``"auto"``: as they were saved.

    Raises:
        ValueError: as :func:`part_opened`, or a weight is missing.
    """
    with part_opened(folder):
        encoder, found = UMT5EncoderModel.from_pretrained(
            folder, dtype=dtype, variant=variant_beside(folder, weights="model"), output_loading_info=True
        )
        if missing := sorted(found["missing_keys"]):
            raise ValueError(f"it lacks {missing[0]}")
    return encoder.eval()


def first_line(error: Exception) -> str:
    """The first line of what went wrong, or its kind where nothing is said."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def check_weights(folder: Path) -> None:
    """Refuse weight files that are missing or cut short, by their sizes alone.

    Raises:
        ValueError: such a file, named with what to do. One line.
    """
    for index in visible(folder, "*.safetensors.index*.json"):
        for shard in _shards(index):
            if not (folder / shard).is_file():
                raise ValueError(f"{folder} lacks {shard}: copy or download that file again")
    for path in visible(folder, "*.safetensors"):
        if path.stat().st_size != _safetensors_size(path):
            raise ValueError(f"{path} is cut short or damaged: copy or download it again")


def _shards(index: Path) -> list[str]:
    """The files that an index of weights names, in its own folder."""
    cure = "copy or download that file again"
    named = read_object(index, cure).get("weight_map")
    files = named.values() if isinstance(named, dict) else [None]
    if not all(isinstance(file, str) and file == Path(file).name for file in files):
        raise ValueError(f"{index} is damaged (weight_map names no files): {cure}")
    return sorted(set(files))


def _safetensors_size(path: Path) -> int:
    """The size that a safetensors file says it has, -1 where it says nothing sensible."""
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            header = parsed(file.read(min(length, 100_000_000)))
            ends = [int(tensor["data_offsets"][1]) for name, tensor in header.items() if name != "__metadata__"]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError):
            return -1
    return 8 + length + max(ends, default=0)
