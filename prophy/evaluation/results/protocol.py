"""What the videos of one folder of a benchmark have in common, in a file beside them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict

from prophy.evaluation.results.interval import Count
from prophy.files import read_regular
from prophy.runs.computation import Computation
from prophy.schema import MOST_BYTES, STRICT, decoded

PROTOCOL = "protocol.json"
_LATER = ("negative_prompt", "guidance_2", "flow_shift", "sampler", "computation")


@dataclass(frozen=True)
class Protocol:
    """What every video of a folder has in common.

    Attributes:
        prompts_sha256: of the prompt set.
        text_field: which of the benchmark's captions the model got.
        prompts: how many.
        branch: whether the branch took part.
        seed: of the first prompt; the n-th has ``seed + n``.
        computation: how they were computed; not known of videos that 0.1.0 made.
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
    negative_prompt: str = ""
    guidance_2: float | None = None
    flow_shift: float | None = None
    sampler: str | None = None
    computation: Computation = field(default_factory=Computation)

    def to_json(self) -> dict[str, Any]:
        """Of that which 0.1.0 did not have only what is known and set."""
        plain = {**asdict(self), "computation": self.computation.to_json()}
        return {name: value for name, value in plain.items() if name not in _LATER or value not in (None, "", {})}

    def difference(self, other: Protocol, free: Collection[str] = ()) -> str:
        """Which fields of another protocol differ, how its videos were computed among them; empty: none.

        Args:
            other: of other videos.
            free: fields that may differ; with ``model_sha256`` among them the adapters may too.
        """
        names = [one.name for one in fields(self) if one.name not in (*free, "computation")]
        said = [name for name in names if getattr(self, name) != getattr(other, name)]
        how = self.computation.differences(other.computation, weights="model_sha256" not in free)
        return ", ".join([*said, *([f"computation ({', '.join(how)})"] if how else [])])

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
            return decoded(cls, read_regular(path, MOST_BYTES))
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}): generate into another folder") from error
