"""A saved annotation: targets, answers, maps and how they were made. Written and opened without torch.

Shapes: T, h, w the grid of video tokens; K decoder layers.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prophy import phenomena
from prophy.annotation.config import AnnotationConfig
from prophy.arrays import read_npz
from prophy.files import replacing
from prophy.routing.targets import TokenTargets

TARGETS, ATTENTION = "targets.npz", "attention.npz"
MAX_BYTES = 2**28  #: of an opened file of attention maps


@dataclass(frozen=True)
class Answer:
    """One question about a clip.

    Attributes:
        question: what was asked.
        text: what the model said.
        num_tokens: tokens of it, the one that ends it not counted; 0: the model ended at once.
        attention: float32 ``(T, h, w)``: attention on each video token, averaged over the answer's tokens and the
            configured heads and layers. The row that counts for a token is the one that predicted it.
        layer_attention: float32 ``(K, T, h, w)``, each layer alone; None unless kept.
    """

    question: str
    text: str
    num_tokens: int
    attention: np.ndarray
    layer_attention: np.ndarray | None = None

    def by_layer(self) -> np.ndarray:
        """Each layer's attention on every video token, float32 ``(K, V)``.

        Raises:
            ValueError: it was not kept.
        """
        if self.layer_attention is None:
            raise ValueError("the attention of single layers was not kept: set keep_layers=True to measure them")
        return self.layer_attention.reshape(len(self.layer_attention), -1)


@dataclass(frozen=True)
class AnnotationRecord:
    """How an annotation was made.

    Attributes:
        model: the vision-language model's repository or folder name.
        revision: its commit; of a folder a digest of its files; ``unknown`` for a model made in memory.
        family: as in :mod:`prophy.annotation.families`.
        prompt_version: :data:`prophy.annotation.config.PROMPT_VERSION`.
        layers: decoder layers that were averaged.
        config: everything that was configured.
        frame_indices: frames of the clip that the model saw.
        num_frames: frames of the clip.
        fps: frames per second of the clip.
    """

    model: str
    revision: str
    family: str
    prompt_version: str
    layers: tuple[int, ...]
    config: AnnotationConfig
    frame_indices: tuple[int, ...]
    num_frames: int
    fps: float

    @property
    def source(self) -> str:
        """The short form that travels in :class:`prophy.routing.targets.TokenTargets`."""
        return f"{self.model}@{self.revision} {self.prompt_version}"


@dataclass(frozen=True)
class Annotation:
    """One annotated clip.

    Attributes:
        targets: ``Q_r`` on the diffusion model's token grid.
        answers: phenomenon id -> what the model said and where it looked.
        background: the same for the description of the whole video.
        record: how it was made.
    """

    targets: TokenTargets
    answers: dict[str, Answer]
    background: Answer
    record: AnnotationRecord

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Phenomena about which the model said nothing: their targets are zero everywhere, which trains nothing."""
        return tuple(name for name, answer in self.answers.items() if not answer.num_tokens)

    def save(self, folder: Path) -> None:
        """Write ``targets.npz`` and ``attention.npz`` into a folder, each whole or not at all, without pickles."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        answers = {"": self.background, **self.answers}
        arrays: dict[str, Any] = {f"attention:{name}": answer.attention for name, answer in answers.items()}
        arrays |= {f"layers:{n}": a.layer_attention for n, a in answers.items() if a.layer_attention is not None}
        about = {
            "record": asdict(self.record),
            "answers": {
                n: {"question": a.question, "text": a.text, "tokens": a.num_tokens} for n, a in answers.items()
            },
            "phenomena_version": phenomena.VERSION,
        }
        with replacing(folder / ATTENTION) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, about=np.array(json.dumps(about)), **arrays)
        self.targets.save(folder / TARGETS)  # last: where there are targets, there is an annotation

    @classmethod
    def load(cls, folder: Path) -> Annotation:
        """Open a saved annotation.

        Raises:
            FileNotFoundError: no annotation there.
            ValueError: a file that is not an annotation's, or of another list of phenomena.
        """
        folder = Path(folder)
        targets = TokenTargets.load(folder / TARGETS)
        try:
            file = read_npz(folder / ATTENTION, MAX_BYTES)
            about = json.loads(str(file["about"]))
            answers = {}
            for name, said in about["answers"].items():
                layers = f"layers:{name}"
                answers[name] = Answer(
                    said["question"],
                    said["text"],
                    said["tokens"],
                    file[f"attention:{name}"],
                    file.get(layers),
                )
            version = about["phenomena_version"]
            record = _read_record(about["record"])
            background = answers.pop("")
        except FileNotFoundError:
            raise
        except Exception as error:
            raise ValueError(
                f"{folder.name}/{ATTENTION} does not hold attention maps: annotate the clip again"
            ) from error
        if version != phenomena.VERSION:
            raise ValueError(f"annotation {folder.name} uses phenomena {version!r}, not {phenomena.VERSION!r}")
        return cls(targets, answers, background, record)


def _read_record(fields: dict[str, Any]) -> AnnotationRecord:
    """JSON has no tuples: turn its lists back into them."""

    def frozen(values: dict[str, Any]) -> dict[str, Any]:
        return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}

    config = AnnotationConfig(**frozen(fields.pop("config")))
    return AnnotationRecord(**frozen(fields), config=config)
