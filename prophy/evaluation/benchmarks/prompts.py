"""The prompts of the public benchmarks, read from their own files into one form, and back from it.

    prophy evaluate videophy2 prompts videophy2_test.csv --out runs/videophy2/prompts.json

Formats: VideoPhy2's test CSV (one row a *video*: rows are grouped by caption), PhyGenBench's ``prompts.json`` and
PhyGround's ``prompts/phyground.json``. What is odd in a file is counted and told; what makes it unusable is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ConfigDict

from prophy.data.tables import csv_rows, read_mended_text
from prophy.evaluation.results import write_json
from prophy.files import read_regular, sha256
from prophy.schema import MOST_BYTES, STRICT, decoded, parsed

CAPTIONS = ("caption", "upsampled_caption")  #: of VideoPhy2: the short one, and the one rewritten for video models


@dataclass(frozen=True)
class BenchmarkPrompt:
    """One prompt.

    Attributes:
        stem: name of its video's file, without ``.mp4``, as the benchmark's own judge expects it where it does.
        text: what the video model gets.
        caption: what the judge is asked about.
        hard: member of the HARD subset; None where a benchmark has none.
        category: the benchmark's own, such as an action or a law.
    """

    stem: str
    text: str
    caption: str
    hard: bool | None
    category: str


@dataclass(frozen=True)
class PromptSet:
    """The prompts of a benchmark.

    Attributes:
        benchmark: which.
        source_sha256: of the file they were read from.
        text_field: which of its fields became ``text``.
        prompts: in the file's order.
        notes: what was odd in the file, one line each.
        schema: version of these fields in a file.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    schema: Literal[1] = field(default=1, kw_only=True)
    benchmark: str
    source_sha256: str
    text_field: str
    prompts: tuple[BenchmarkPrompt, ...]
    notes: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """Of everything that a protocol depends on."""
        about = [self.benchmark, self.source_sha256, self.text_field, [vars(prompt) for prompt in self.prompts]]
        return sha256(json.dumps(about))

    def save(self, path: Path) -> Path:
        """Write as JSON."""
        return write_json(path, self)

    @classmethod
    def load(cls, path: Path) -> PromptSet:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: no such file.
            ValueError: it is no prompt set, or its prompts contradict each other.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: make it with `prophy evaluate videophy2 prompts` first")
        try:
            made = decoded(cls, read_regular(path, MOST_BYTES))
        except ValueError as error:
            raise ValueError(f"{path} is not a prompt set ({error}): make it again") from error
        _check_unique(made.prompts, path)
        return made


def read_videophy2(path: Path, text_field: str = "upsampled_caption") -> PromptSet:
    """The prompts of VideoPhy2's test CSV: rows grouped by caption.

    Args:
        path: ``videophy2_test.csv``; bytes that are not UTF-8 are read as Windows-1252 and counted.
        text_field: one of :data:`CAPTIONS`, what the video model gets. The judge always gets the caption.

    Raises:
        ValueError: a column is missing, a caption is empty, or rows of one caption disagree on ``is_hard``.
    """
    if text_field not in CAPTIONS:
        raise ValueError(f"unknown caption field {text_field!r}: use {' or '.join(CAPTIONS)}")
    raw = _read(path)
    text, repaired = read_mended_text(Path(path))
    groups: dict[str, list[Mapping[str, str]]] = {}
    for number, row in enumerate(columns(path, text, (*CAPTIONS, "is_hard"), "give VideoPhy2's videophy2_test.csv"), 2):
        caption = _one_line(row["caption"])
        if not caption:
            raise ValueError(f"{path}, row {number}: the caption is empty: mend or remove the row")
        groups.setdefault(caption, []).append(row)
    notes = [f"{sum(map(len, groups.values()))} rows (videos), {len(groups)} captions"]
    if repaired:
        notes.append(f"{repaired} bytes are not UTF-8 and were read as Windows-1252")
    prompts, differing, without = [], 0, 0
    for index, (caption, rows) in enumerate(groups.items()):
        if len(hard := {_flag(row["is_hard"], path) for row in rows}) > 1:
            raise ValueError(f"{path}: the rows of {caption!r} disagree on is_hard: mend the file")
        longer = list(dict.fromkeys(_one_line(row["upsampled_caption"]) for row in rows))
        differing += len(longer) > 1
        without += text_field != "caption" and not longer[0]
        chosen = caption if text_field == "caption" else longer[0] or caption
        category = _one_line(rows[0].get("action") or rows[0].get("category") or "")
        prompts.append(BenchmarkPrompt(_stem(index, caption), chosen, caption, hard.pop(), category))
    if differing:
        notes.append(f"{differing} captions have several upsampled captions; the first is used")
    if without:
        notes.append(f"{without} captions have no upsampled caption; the caption is used")
    notes.append(f"{sum(bool(prompt.hard) for prompt in prompts)} are HARD")
    return _made("videophy2", raw, text_field, prompts, notes, path)


def read_phygenbench(path: Path, text_field: str = "caption") -> PromptSet:
    """PhyGenBench's ``prompts.json``: a list of ``caption``, ``physical_laws``, ``sub_category``, ``main_category``.

    Videos are numbered from 1, ``output_video_1.mp4``, as its evaluation looks for them.
    """
    entries = _entries(path, ("caption", "physical_laws"))
    prompts = [
        BenchmarkPrompt(
            f"output_video_{number}",
            _one_line(entry[text_field]),
            _one_line(entry["caption"]),
            None,
            ": ".join(str(entry[name]) for name in ("main_category", "sub_category") if name in entry),
        )
        for number, entry in enumerate(entries, 1)
    ]
    return _made("phygenbench", _read(path), text_field, prompts, [], path)


def read_phyground(path: Path, text_field: str = "prompt") -> PromptSet:
    """PhyGround's ``phyground.json``: a list of ``id``, ``prompt``, ``physical_laws`` (a list) and ``id_stem``.

    Raises:
        ValueError: no such list, or a field that is not as it says. One line.
    """
    entries = _entries(path, ("id", "prompt", "physical_laws", "id_stem"))
    for entry in entries:
        if not re.fullmatch(r"[\w.\-]+", str(entry["id_stem"])):
            raise ValueError(f"{path}: the id_stem {entry['id_stem']!r} is no file name: mend the file")
        if not isinstance(entry["physical_laws"], list):
            raise ValueError(f"{path}: physical_laws of {entry['id_stem']} is no list: mend the file")
    prompts = [
        BenchmarkPrompt(
            str(entry["id_stem"]),
            _one_line(entry[text_field]),
            _one_line(entry["prompt"]),
            None,
            ", ".join(str(law) for law in entry["physical_laws"]),
        )
        for entry in entries
    ]
    return _made("phyground", _read(path), text_field, prompts, [], path)


#: benchmark -> what reads its file
READERS: dict[str, Callable[..., PromptSet]] = {
    "videophy2": read_videophy2,
    "phygenbench": read_phygenbench,
    "phyground": read_phyground,
}


def _made(
    benchmark: str, raw: bytes, text_field: str, prompts: list[BenchmarkPrompt], notes: list[str], path: Path
) -> PromptSet:
    if not prompts:
        raise ValueError(f"{path} holds no prompts")
    if empty := [prompt.stem for prompt in prompts if not prompt.text]:
        raise ValueError(f"{path}: the prompt of {empty[0]} is empty: mend or remove it")
    seen: dict[str, BenchmarkPrompt] = {}
    for prompt in prompts:
        seen.setdefault(prompt.text, prompt)
    if twice := len(prompts) - len(seen):
        notes = [*notes, f"{twice} prompts stand twice; each is kept, under a name of its own"]
    _check_unique(prompts, path)
    return PromptSet(benchmark, sha256(raw), text_field, tuple(prompts), tuple(notes))


def _check_unique(prompts: Iterable[BenchmarkPrompt], path: Path) -> None:
    stems = [prompt.stem.casefold() for prompt in prompts]  # some systems take A and a for one
    if len(set(stems)) != len(stems):
        raise ValueError(f"{path}: two prompts have the video name {max(stems, key=stems.count)}: mend the file")


def _entries(path: Path, fields: tuple[str, ...]) -> list[dict]:
    _read(path)
    text, _ = read_mended_text(Path(path))
    try:
        entries = parsed(text)
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}): give the benchmark's own file") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path} is no list of objects: give the benchmark's own file")
    for number, entry in enumerate(entries, 1):
        if missing := [field for field in fields if field not in entry]:
            raise ValueError(f"{path}: entry {number} has no {missing[0]}: give the benchmark's own file")
        if odd := [field for field in ("caption", "prompt") if not isinstance(entry.get(field, ""), str)]:
            raise ValueError(f"{path}: the {odd[0]} of entry {number} is no text: give the benchmark's own file")
    return entries


def _read(path: Path) -> bytes:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: download the benchmark's file and give its path")
    return read_regular(path, MOST_BYTES)


def columns(path: Path, text: str, needed: Sequence[str], cure: str) -> Iterator[Mapping[str, str]]:
    """The rows of a CSV that has these columns.

    Raises:
        ValueError: one of them is missing, or a row cannot be read; ``cure`` ends the message.
    """
    for row in csv_rows(Path(path), text):
        if row.fields is None:
            raise ValueError(f"{row.where}: {row.problem}")
        if missing := [name for name in needed if name not in row.fields]:
            raise ValueError(f"{path} has no column {missing[0]}, only {', '.join(row.fields)}: {cure}")
        yield {name: str(cell) for name, cell in row.fields.items()}


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _flag(text: str | None, path: Path) -> bool:
    value = (text or "").strip().lower()
    if value in ("true", "1", "1.0", "yes"):
        return True
    if value in ("false", "0", "0.0", "no"):
        return False
    raise ValueError(f"{path}: is_hard is {text!r}, neither true nor false: mend the file")


def _stem(index: int, text: str) -> str:
    return f"{index:04d}-{sha256(text)[:8]}"
