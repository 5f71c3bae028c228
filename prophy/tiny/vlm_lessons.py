"""What the small vision-language model is asked about clips of the worlds, and what it must answer."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from prophy import phenomena
from prophy.annotation.clips import frame_indices
from prophy.annotation.config import BACKGROUND_QUESTION, AnnotationConfig
from prophy.annotation.families import FAMILIES, TURN_END, VIDEO_TOKEN
from prophy.arrays import read_npz
from prophy.files import replacing, visible, write_text
from prophy.schema import read_object
from prophy.worlds import COLOURS, Drawn, Scenario, Stage, WorldSet, refuse_redrawn, sample_clip, sample_scenario
from prophy.worlds.captions import TEMPLATES
from prophy.worlds.scope import SCOPE
from prophy.worlds.stage import BACKGROUNDS

log = logging.getLogger(__name__)

TEMPORAL = 2  #: frames of a video token
#: How the annotator shows a world to this model: half of its frames, at their own size.
ANNOTATION = AnnotationConfig(fps=4.0, min_frame_tokens=64, max_frame_tokens=64, max_answer_tokens=48)
WHICH_QUESTION = "Which phenomena are in the video?"
GENERAL = (BACKGROUND_QUESTION, WHICH_QUESTION)
SPECIAL = ("<|im_start|>", TURN_END, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", VIDEO_TOKEN)
_PLACES = {"left": "on the left", "right": "on the right", "centre": "in the middle"}
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
STAGE = Stage()  #: the clips it knows
_ROW_EDGES, _COLUMN_EDGES = (26.0, 42.0), (STAGE.height / 3, 2 * STAGE.height / 3)  # pixels
_TRENDS = ("shrinking", "steady", "growing")
_DRAWN = "drawn.json"  # beside the clips: what the worlds drew
_BLOCK = 50  # clips rendered between two writes
_MOST_BYTES = 2**28  # of a block


@dataclass(frozen=True)
class Course:
    """What can be seen of one event, from its mask.

    Attributes:
        start: row and column, of three each, where it is first seen.
        end: where it is last seen.
        trend: its area at the end against that at the start: 0 shrinking, 1 steady, 2 growing.
    """

    start: tuple[int, int]
    end: tuple[int, int]
    trend: int

    @classmethod
    def of(cls, mask_FHW: np.ndarray) -> Course:
        shown = np.flatnonzero(mask_FHW.any((1, 2)))
        places, areas = [], []
        for frame in shown[[0, -1]] if len(shown) else ():
            ys, xs = np.nonzero(mask_FHW[frame])
            places.append((int(np.digitize(ys.mean(), _ROW_EDGES)), int(np.digitize(xs.mean(), _COLUMN_EDGES))))
            areas.append(len(ys))
        if not places:
            return cls((1, 1), (1, 1), 1)
        return cls(places[0], places[1], int(np.digitize(areas[1] / areas[0], (0.8, 1.25))))

    def describe(self) -> str:
        start, end = (f"{_ROWS[row]} {_COLUMNS[column]}" for row, column in (self.start, self.end))
        path = f"staying at the {start}" if start == end else f"from the {start} to the {end}"
        return f"{path}, {_TRENDS[self.trend]}"


def sentence(phenomenon: str, variant: str, colours: tuple[str, ...]) -> str:
    """An event in the one wording that answers use: the first held-out sentence of the captions' grammar."""
    return TEMPLATES[phenomenon, variant][1][0].format(*colours)


def questions_and_answers(scenario: Scenario, courses: list[Course]) -> dict[str, str]:
    """Everything the model is asked about a clip, and what it must say."""
    names = [phenomena.by_id(event.phenomenon) for event in scenario.events]
    answers = {
        BACKGROUND_QUESTION: f"a {scenario.setting} scene with {' and '.join(e.variant for e in scenario.events)}",
        WHICH_QUESTION: " and ".join(phenomenon.name for phenomenon in names),
    }
    for phenomenon, event, course in zip(names, scenario.events, courses, strict=True):
        said = sentence(event.phenomenon, event.variant, event.colours)
        answers[phenomenon.question] = f"{said} {_PLACES[event.place]}, {course.describe()}"
    return answers


def thing(answer: str) -> str:
    """An answer about a phenomenon without where it is."""
    return next(answer.split(f" {place},")[0] for place in _PLACES.values() if f" {place}," in answer)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer of every word that is asked or answered; any other becomes ``<unk>``."""
    texts = [BACKGROUND_QUESTION, WHICH_QUESTION, "a scene with and", *BACKGROUNDS, *_PLACES.values(), *_TRENDS]
    texts += [f"staying at the from to {row} {column}" for row in _ROWS for column in _COLUMNS]
    texts += [text for p in phenomena.PHENOMENA for text in (p.name, p.question)]
    texts += [f"{variant} {sentence(p, variant, (c, c))}" for p, variant in TEMPLATES for c in COLOURS]
    texts += ["system user assistant", *(family.system for family in FAMILIES)]
    split = pre_tokenizers.Split(Regex(r"[^a-z]+"), "removed")
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text.lower())})
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<unk>", *words])}, unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Lowercase(), split
    tokenizer.add_special_tokens(list(SPECIAL))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token=TURN_END)


class Lessons:
    """Rendered clips of a split with their questions and answers, kept on disk so that a resumed run opens at once.

    Attributes:
        frames: uint8 ``(n, 8, H, W, 3)``: the frames that the annotator shows.
        answers: for each clip, question -> answer.
        drawn: digest of what the worlds drew; empty where an older release noted nothing.

    Raises:
        ValueError: a file is damaged, or the worlds draw its clips otherwise now. One line.
    """

    def __init__(self, folder: Path, count: int, split: str) -> None:
        folder = Path(folder) / f"{split}-fps{ANNOTATION.fps:g}"
        folder.mkdir(parents=True, exist_ok=True)
        self.drawn = _claim(folder, WorldSet(SCOPE, split, STAGE))
        blocks = []
        for start in tqdm(range(0, count, _BLOCK), f"render {split}", mininterval=10):
            seeds = range(start, min(start + _BLOCK, count))
            path = folder / f"{start:06d}-{len(seeds)}.npz"
            if not path.exists():
                frames, courses = _render(seeds, split)
                with replacing(path, shared=True) as temporary, open(temporary, "wb") as file:
                    np.savez(file, frames=frames, courses=courses)
            blocks.append(_read_block(path, len(seeds)))
        self.frames = np.concatenate([frames for frames, _ in blocks])[:count]
        courses_n25 = np.concatenate([courses for _, courses in blocks])[:count]
        self.answers = []
        for seed, rows in enumerate(courses_n25.tolist()):
            seen = [Course(tuple(row[:2]), tuple(row[2:4]), row[4]) for row in rows]
            scenario = sample_scenario(seed, split, SCOPE)[0]
            self.answers.append(questions_and_answers(scenario, seen[: len(scenario.events)]))

    def __len__(self) -> int:
        return len(self.answers)


def _read_block(path: Path, clips: int) -> tuple[np.ndarray, np.ndarray]:
    """What :func:`_render` gave.

    Raises:
        ValueError: the file is damaged. One line.
    """
    shown = len(frame_indices(STAGE.frames, STAGE.fps, TEMPORAL, ANNOTATION))
    wanted = {
        "frames": (np.dtype(np.uint8), (clips, shown, STAGE.height, STAGE.height, 3)),
        "courses": (np.dtype(np.int64), (clips, 2, 5)),
    }
    try:
        block = read_npz(path, _MOST_BYTES)
        if {name: (array.dtype, array.shape) for name, array in block.items()} != wanted:
            raise ValueError("it holds other arrays")
        if block["courses"].min() < 0 or block["courses"].max() > 2:
            raise ValueError("it says what no clip shows")
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): delete it, it is rendered again") from None
    return block["frames"], block["courses"]


def _claim(folder: Path, worlds: WorldSet) -> str:
    """Note what the worlds draw where nothing is kept yet, else compare. A digest of it; empty: it is not known."""
    note = folder / _DRAWN
    kept = visible(folder, "*.npz")
    if not kept and not note.exists():
        write_text(note, json.dumps(Drawn.by(worlds).record()), shared=True)
    try:
        before = Drawn.from_record(read_object(note, "delete its folder")) if note.exists() else None
    except ValueError as error:
        raise ValueError(f"{note} is damaged ({error}): delete its folder") from None
    refuse_redrawn(folder, before, worlds, captions=False)
    if before is not None:
        return before.pictures
    first, clips = map(int, kept[0].stem.split("-"))
    frames, _ = _read_block(kept[0], clips)
    if not np.array_equal(frames[:1], _render(range(first, first + 1), worlds.split)[0]):
        log.warning(
            "%s was rendered by an older release, and clip %d is another in this release's worlds, or on this machine: "
            "delete it to render it anew",
            folder,
            first,
        )
    return ""


def _render(seeds: range, split: str) -> tuple[np.ndarray, np.ndarray]:
    """The shown frames of clips, and of each clip's first and second event the five numbers of its course."""
    shown = frame_indices(STAGE.frames, STAGE.fps, TEMPORAL, ANNOTATION)
    frames = np.empty((len(seeds), len(shown), STAGE.height, STAGE.height, 3), np.uint8)
    courses = np.ones((len(seeds), 2, 5), np.int64)
    for i, seed in enumerate(seeds):
        clip = sample_clip(seed, split, SCOPE)
        frames[i] = clip.frames[shown]
        for slot, event in enumerate(clip.scenario.events):
            course = Course.of(clip.masks[event.phenomenon])
            courses[i, slot] = (*course.start, *course.end, course.trend)
    return frames, courses
