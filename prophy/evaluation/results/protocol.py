"""What the videos of one folder of a benchmark have in common, in a file beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict

from prophy.evaluation.results.interval import Count
from prophy.schema import STRICT, decoded

PROTOCOL = "protocol.json"


@dataclass(frozen=True)
class Protocol:
    """What every video of a folder has in common.

    Attributes:
        prompts_sha256: of the prompt set.
        text_field: which of the benchmark's captions the model got.
        prompts: how many.
        branch: whether the branch took part.
        seed: of the first prompt; the n-th has ``seed + n``.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    benchmark: str
    prompts_sha256: str
    text_field: str
    prompts: Count
    model_sha256: str
    branch: bool
    seed: int
    steps: Count
    guidance: float
    frames: Count
    height: Count
    width: Count
    fps: float

    @classmethod
    def load(cls, folder: Path) -> Protocol:
        """Of a folder of videos.

        Raises:
            FileNotFoundError: no videos were generated there.
            ValueError: the file is damaged.
        """
        path = Path(folder) / PROTOCOL
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: generate the videos into {folder} first")
        try:
            return decoded(cls, path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}): generate into another folder") from error
