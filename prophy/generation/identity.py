"""What made a clip: the model's name, the digest of its weights, and whether its branch took part."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from prophy.branch import ProPhyBranch
from prophy.files import file_sha256, sha256
from prophy.memory.offload import state_of

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def model_hash(pipeline: DiffusionPipeline) -> str:
    """SHA-256 of the weights of every component that takes part, 64 hexadecimal digits.

    A branch that is switched off takes no part: the digest is that of the backbone opened with ``branch=False``.
    A component opened from a folder is hashed by its files, each file once per size and modification time. One built in
    memory is hashed by its tensors, and so is a LoRA that was loaded into it.
    """
    off = not branch_is_on(pipeline)
    parts = {
        name: part
        for name, part in sorted(pipeline.components.items())
        if isinstance(part, torch.nn.Module) and not (off and isinstance(part, ProPhyBranch))
    }
    return sha256("".join(f"{name}:{_component_hash(part)}\n" for name, part in parts.items()))


def _component_hash(component: torch.nn.Module) -> str:
    origin = getattr(component.config, "_name_or_path", "")
    files = sorted(Path(origin).glob("*.safetensors")) if origin and Path(origin).is_dir() else []
    digest = hashlib.sha256()
    for path in files:
        status = path.stat()
        digest.update(bytes.fromhex(_file_sha256(path, status.st_size, status.st_mtime_ns)))
    adapted = bool(getattr(component, "peft_config", None))
    if adapted or not files:
        for name, tensor in sorted(state_of(component).items()):
            if files and "lora_" not in name:
                continue
            raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
            digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(raw.numpy().tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=256)
def _file_sha256(path: Path, size: int, mtime_ns: int) -> str:
    return file_sha256(path)


def model_id(pipeline: DiffusionPipeline) -> str:
    """A folder's name or a hub id; never a path of this machine."""
    origin = str(getattr(pipeline.config, "_name_or_path", "") or "")
    return (Path(origin).name if Path(origin).is_dir() else origin) or type(pipeline).__name__


def branch_is_on(pipeline: DiffusionPipeline) -> bool:
    """Whether a branch takes part in what the pipeline generates."""
    attachment = getattr(pipeline, "attachment", None)
    return attachment is not None and attachment.enabled


@contextmanager
def branch_switched(pipeline: DiffusionPipeline, on: bool) -> Iterator[None]:
    """Let the branch of an opened pipeline take part inside the block, or not; without a branch nothing changes."""
    attachment = getattr(pipeline, "attachment", None)
    with nullcontext() if attachment is None else attachment.switched(on):
        yield
