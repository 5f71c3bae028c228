"""The annotator: clip + phenomena -> token targets (paper, section 3.3)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from prophy import phenomena
from prophy.annotation import maps
from prophy.annotation.answering import answer_questions, read_video
from prophy.annotation.capture import AnswerAttention, capturable
from prophy.annotation.clips import PackedClip, pack_clip
from prophy.annotation.config import BACKGROUND_QUESTION, PROMPT_VERSION, AnnotationConfig
from prophy.annotation.families import family_of
from prophy.annotation.record import Annotation, AnnotationRecord, Answer
from prophy.annotation.vlm import VisionLanguageModel
from prophy.backbones.opening import part_opened
from prophy.files import file_sha256, sha256, visible
from prophy.grid import TokenGrid
from prophy.routing.targets import TokenTargets

log = logging.getLogger(__name__)

_MODEL_FILES = (".safetensors", ".bin", ".json", ".txt")


class Annotator:
    """Asks a vision-language model about a clip's phenomena and turns where it looks into token targets.

    One at a time for each model: while a clip is annotated, the model's attention runs through
    :mod:`prophy.annotation.capture`.

    Args:
        model: a ``…ForConditionalGeneration`` of Qwen2.5-VL, Qwen3-VL or Qwen3.5.
        tokenizer: its tokenizer, or a processor that holds it.
        config: how to annotate.
        name: what the model is called in the record; by default what it was loaded as.

    Raises:
        ValueError: a model of another family or without full attention, a tokenizer of another model, layers or heads
            that do not exist, or an attention implementation that cannot be captured.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        config: AnnotationConfig | None = None,
        *,
        name: str | None = None,
    ) -> None:
        self.config = config or AnnotationConfig()
        self.vlm = VisionLanguageModel(model, tokenizer)
        self.layers = self.vlm.layers(self.config)
        self.name = name or model.config.name_or_path or type(model).__name__
        self.revision = getattr(model.config, "_commit_hash", None) or "unknown"
        with capturable(self.vlm.text_config):
            pass  # an implementation that cannot be captured is refused here, not at the first clip

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        config: AnnotationConfig | None = None,
        *,
        dtype: torch.dtype | str = "auto",
        device: str | torch.device = "cpu",
        revision: str | None = None,
    ) -> Annotator:
        """Load a model and its tokenizer from a hub repository or a folder.

        Args:
            model: repository or folder.
            dtype: of the weights; ``"auto"``: as they were saved.
            device: where they go; ``"auto"`` spreads them over all accelerators.
            revision: commit, branch or tag of a repository.

        Raises:
            ValueError: as the class; the family is checked before weights are read. No such repository or folder, or a
                damaged one; one line.
        """
        source = str(model)
        with part_opened(source):
            model_type = AutoConfig.from_pretrained(source, revision=revision).model_type
        family_of(model_type)
        with part_opened(source):
            loaded = AutoModelForImageTextToText.from_pretrained(
                source, revision=revision, dtype=dtype, device_map=device, attn_implementation="sdpa"
            )
            tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
        if not Path(source).is_dir():
            return cls(loaded, tokenizer, config, name=source)
        # a folder's name, not its place: the record travels
        annotator = cls(loaded, tokenizer, config, name=Path(source).resolve().name)
        annotator.revision = _folder_digest(Path(source))
        return annotator

    def annotate(
        self, frames_FHW3: np.ndarray, fps: float, phenomenon_ids: Sequence[str], grid: TokenGrid
    ) -> Annotation:
        """Targets of one clip.

        For each phenomenon, attention of its answer minus attention of a description of the whole video, on the
        diffusion model's token grid; negative: not here. A phenomenon about which the model says nothing (it ends the
        answer at once) gets zeros, which train nothing, is logged and listed in ``Annotation.unanswered``.

        Args:
            frames_FHW3: uint8 RGB. The clip and the grid's video cover the same time; their numbers of frames may
                differ.
            fps: frames per second of the clip.
            phenomenon_ids: what the clip is labelled with.
            grid: the diffusion model's token grid.

        Raises:
            KeyError: an unknown phenomenon.
            ValueError: no frames, no phenomena, or no answer to compare with: the model ended its description of the
                whole video at once.
        """
        asked = {name: phenomena.by_id(name).question for name in phenomenon_ids}
        if not asked:
            raise ValueError("the clip is labelled with no phenomenon: leave it out, it needs no annotation")
        clip = pack_clip(np.asarray(frames_FHW3), fps, self.vlm.sizes, self.vlm.family, self.config)
        background, *said = self._ask(clip, [BACKGROUND_QUESTION, *asked.values()])
        if not background.num_tokens:
            raise ValueError(f"the model says nothing to {BACKGROUND_QUESTION!r}: use another model or a longer clip")
        answers = dict(zip(asked, said, strict=True))

        values = np.zeros((grid.num_tokens, len(phenomena.PHENOMENA)), np.float32)
        labelled = np.zeros(len(phenomena.PHENOMENA), bool)
        for name, answer in answers.items():
            index = phenomena.by_id(name).index
            labelled[index] = True
            if not answer.num_tokens:
                log.warning("the model says nothing to %r: its targets are zero", answer.question)
                continue
            difference = maps.subtract(answer.attention, background.attention, relative=self.config.relative)
            column = maps.resample(difference, clip.centres, clip.num_frames, grid)
            values[:, index] = maps.scale_to_peak(column) if self.config.peak else column
        record = AnnotationRecord(
            self.name,
            self.revision,
            self.vlm.family.name,
            PROMPT_VERSION,
            self.layers,
            self.config,
            clip.frame_indices,
            clip.num_frames,
            float(fps),
        )
        return Annotation(TokenTargets(values, labelled, grid, record.source), answers, background, record)

    def _ask(self, clip: PackedClip, questions: list[str]) -> list[Answer]:
        """Read the clip once, answer every question about it, a batch at a time."""
        answers = []
        with capturable(self.vlm.text_config):
            prefix = read_video(self.vlm, clip)
            for start in range(0, len(questions), self.config.questions_per_batch):
                batch = questions[start : start + self.config.questions_per_batch]
                recorder = AnswerAttention(
                    self.layers,
                    prefix.columns_V,
                    len(batch),
                    heads=self.config.heads,
                    keep_layers=self.config.keep_layers,
                )
                with recorder.recording():
                    said = answer_questions(self.vlm, prefix, batch, self.config, recorder)
                for question, tokens, map_KV in zip(batch, said, recorder.means_BKV(), strict=True):
                    layers = map_KV.numpy().reshape(-1, *clip.grid)
                    text = self.vlm.tokenizer.decode(tokens, skip_special_tokens=True).strip()
                    kept = layers if self.config.keep_layers else None
                    answers.append(Answer(question, text, len(tokens), layers.mean(0), kept))
        return answers


def _folder_digest(folder: Path) -> str:
    """Stands for a commit where there is none: weights, configuration and tokenizer, whatever the folder is called."""
    files = [path for path in visible(folder) if path.suffix in _MODEL_FILES]
    return sha256("".join(f"{path.name} {file_sha256(path)}\n" for path in files))[:16]
