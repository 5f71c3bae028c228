"""What names a LoRA: a file, a folder or a hub id, how strongly it acts, and on which transformer (no torch)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from prophy.catalogue.describe import is_local
from prophy.files import visible

Noise = Literal["high", "low"]

_SUFFIX = ".safetensors"
_USUAL = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")  # as diffusers and peft name them
_STRONGEST = 100.0
_NOWHERE = "no LoRA at {}: give a safetensors file, a folder or a hub id"


@dataclass(frozen=True)
class LoraSource:
    """A LoRA to load.

    Attributes:
        where: a safetensors file, a folder or hub id that holds one, or ``OWNER/NAME/FILE`` for one of several there.
        strength: factor of what it adds, besides the scale (alpha / rank) that its file asks for.
        noise: of a model with two transformers, only the one for high or for low noise; None: all.

    Raises:
        ValueError: a strength that is no number within ±100, or a noise of another name.
    """

    where: str | Path
    strength: float = 1.0
    noise: Noise | None = None

    def __post_init__(self) -> None:
        if not str(self.where).strip():
            raise ValueError("a LoRA without a name: give its file, folder or hub id")
        if not math.isfinite(self.strength) or abs(self.strength) > _STRONGEST:
            raise ValueError(f"a LoRA of strength {self.strength:g}: give a number from -100 to 100, usually 0 to 1")
        if self.noise is not None and self.noise not in get_args(Noise):
            raise ValueError(f"noise={self.noise!r} of a LoRA is neither high nor low")

    @classmethod
    def parse(cls, text: str | Path | LoraSource) -> LoraSource:
        """Read ``[high=|low=]FILE_OR_ID[:STRENGTH]``, such as ``low=motion.safetensors:0.8``.

        Raises:
            ValueError: as the class.
        """
        if isinstance(text, LoraSource):
            return text
        where, noise = str(text).strip(), None
        for name in get_args(Noise):
            if where.startswith(f"{name}="):
                where, noise = where.removeprefix(f"{name}="), name
        head, _, tail = where.rpartition(":")
        if head and not Path(where).exists():
            if _is_number(tail):
                return cls(head, float(tail), noise)
            if head.endswith(_SUFFIX):
                raise ValueError(f"{tail!r} is no strength of {head}: write it like {head}:0.8")
        return cls(where, 1.0, noise)

    @property
    def name(self) -> str:
        """The file's or the repository's name, never a path of this machine."""
        return PurePosixPath(Path(self.where).as_posix()).name or str(self.where)

    def file(self) -> Path:
        """The file itself, downloaded if it lies on the hub.

        Raises:
            FileNotFoundError: there is no such file or folder.
            ValueError: it is no safetensors file, or a folder or repository without one or with several.
        """
        path = Path(self.where).expanduser()
        if path.is_dir():
            return path / _only([entry.name for entry in visible(path)], str(path))
        if path.is_file():
            if path.suffix.lower() != _SUFFIX:
                raise ValueError(f"{path} is no safetensors file: other formats can hold programs, convert it first")
            return path
        owner, _, rest = str(self.where).partition("/")
        if is_local(self.where) or not rest or (rest.endswith(_SUFFIX) and "/" not in rest):
            raise FileNotFoundError(_NOWHERE.format(self.where))
        repo, _, inside = rest.partition("/")
        return _from_hub(f"{owner}/{repo}", inside)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _only(names: Iterable[str], place: str) -> str:
    """The LoRA among the files of a place."""
    files = sorted(name for name in names if name.lower().endswith(_SUFFIX))
    usual = [name for name in _USUAL if name in files]
    if usual or len(files) == 1:
        return (usual or files)[0]
    if not files:
        raise ValueError(f"{place} holds no LoRA: there is no {_SUFFIX} file in it")
    some = ", ".join(files[:4]) + (", …" if len(files) > 4 else "")
    raise ValueError(f"{place} holds several files ({some}): name one, as in {place}/{files[0]}")


def _from_hub(repo: str, inside: str) -> Path:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(hf_hub_download(repo, inside or _only(HfApi().list_repo_files(repo), repo)))
    except HFValidationError:
        raise FileNotFoundError(_NOWHERE.format("/".join(part for part in (repo, inside) if part))) from None
    except ValueError:
        raise
    except Exception as error:  # the hub's client raises its own, requests' and the system's
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"cannot read the LoRA {repo} from the hub: {reason}") from None
