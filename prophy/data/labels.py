"""WISA-80K's labels as data: 29 answers to five questions, the 17 phenomena among them, and how an answer is read.

An answer is text such as ``"deformation, collision"`` or ``"1. gas objects appearance\\n2. no change"``. It is taken
apart into entries, and each whole entry is looked up: a search for substrings would find "melting" in "no melting"
and lose "liquid objects appearance", which WISA's own list spells "liquids objects appearance". What is not
understood is counted.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prophy import phenomena

QUESTIONS = ("q0", "q1", "q2", "q3", "q4")  #: fields of a WISA record, each of labels of one topic

# WISA's own order (arXiv 2503.08153, appendix A.5), in which explosion stands before combustion; that of
# prophy.phenomena is the other way round. The last of q0, q1 and q2 says that there is none.
_TABLE = (
    (
        *("collision", "rigid body motion", "elastic motion", "liquid motion", "gas motion", "deformation"),
        "no obvious dynamic phenomenon",
    ),
    (
        *("melting", "solidification", "vaporization", "liquefaction", "explosion", "combustion"),
        "no obvious thermodynamic phenomenon",
    ),
    (
        *("reflection", "refraction", "scattering", "interference and diffraction", "unnatural light source"),
        "no obvious optical phenomenon",
    ),
    ("yes", "no"),
    (
        *("liquids objects appearance", "solid objects appearance", "gas objects appearance"),
        *("object decomposition and splitting", "mixing of multiple objects", "object disappearance", "no change"),
    ),
)
# "yes" says nothing without its question.
_IDS = {"yes": "camera_motion", "no": "no_camera_motion"}

#: Other spellings of a name: seen in the data, or the same words in another number or in British spelling.
SPELLINGS: dict[str, str] = {
    "liquid objects appearance": "liquids objects appearance",
    "liquid object appearance": "liquids objects appearance",
    "solids objects appearance": "solid objects appearance",
    "solid object appearance": "solid objects appearance",
    "gases objects appearance": "gas objects appearance",
    "gas object appearance": "gas objects appearance",
    "objects decomposition and splitting": "object decomposition and splitting",
    "objects disappearance": "object disappearance",
    "unnatural light sources": "unnatural light source",
    "interference & diffraction": "interference and diffraction",
    "vaporisation": "vaporization",
    "no obvious dynamics phenomenon": "no obvious dynamic phenomenon",
    "no obvious dynamic phenomena": "no obvious dynamic phenomenon",
    "no obvious thermodynamics phenomenon": "no obvious thermodynamic phenomenon",
    "no obvious thermodynamic phenomena": "no obvious thermodynamic phenomenon",
    "no obvious optics phenomenon": "no obvious optical phenomenon",
    "no obvious optical phenomena": "no obvious optical phenomenon",
}

_NUMBERING = re.compile(r"^(?:\d+[.)]|[-*•])\s*")
_SHOWN = 120  #: characters of a text that a tally keeps
_EXAMPLES = 3  #: record ids that a tally keeps


@dataclass(frozen=True)
class Label:
    """One of WISA's 29 answers.

    Attributes:
        id: identifier in files and code; that of :mod:`prophy.phenomena` for the 17.
        name: as WISA spells it.
        question: index into :data:`QUESTIONS`.
        is_phenomenon: one of the 17.
        is_none: says that the question's phenomena are absent.
    """

    id: str
    name: str
    question: int
    is_phenomenon: bool
    is_none: bool


def _label(name: str, question: int) -> Label:
    label_id = _IDS.get(name, name.replace(" ", "_"))
    return Label(label_id, name, question, label_id in phenomena.BY_ID, question < 3 and name.startswith("no obvious"))


LABELS: tuple[Label, ...] = tuple(_label(name, question) for question, names in enumerate(_TABLE) for name in names)
BY_ID: dict[str, Label] = {label.id: label for label in LABELS}


@dataclass(frozen=True)
class LabelSet:
    """The labels that a clip's vector is made of, in order.

    Attributes:
        version: changes with the order; part of what is saved beside a vector.
        ids: of the labels.
        questions: indices of the questions whose answers are read.
    """

    version: str
    ids: tuple[str, ...]
    questions: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)


#: the 17 phenomena
WISA_17 = LabelSet(phenomena.VERSION, phenomena.IDS, (0, 1, 2))
#: with camera motion and the state of the objects
WISA_29 = LabelSet("wisa-29-v1", tuple(label.id for label in LABELS), (0, 1, 2, 3, 4))


def label_set(count: int) -> LabelSet:
    """The set of 17 or of 29.

    Raises:
        ValueError: any other count.
    """
    try:
        return {17: WISA_17, 29: WISA_29}[count]
    except KeyError:
        raise ValueError(f"there is no set of {count} labels: use 17 (phenomena) or 29 (all of WISA's)") from None


def entries(answer: str) -> list[str]:
    """The entries of an answer: split at commas and line ends, without numbering, case and surplus white space."""
    found = []
    for part in re.split(r"[,\n]", unicodedata.normalize("NFKC", answer)):
        words = " ".join(part.casefold().replace("_", " ").split())
        # Quotes and brackets are those of a list that became text in a CSV.
        if entry := _NUMBERING.sub("", words.strip("[]'\" ")).strip(" .;"):
            found.append(entry)
    return found


@dataclass(frozen=True)
class Tally:
    """How often a text was met, and the ids of the first records that hold it."""

    text: str
    count: int
    examples: tuple[str, ...]


class Tallies:
    """Texts being counted."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, text: str, record: str) -> None:
        text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        self._counts[text] += 1
        examples = self._examples.setdefault(text, [])
        if len(examples) < _EXAMPLES and record not in examples:
            examples.append(record)

    def read(self) -> tuple[Tally, ...]:
        """The most frequent first."""
        texts = sorted(self._counts, key=lambda text: (-self._counts[text], text))
        return tuple(Tally(text, self._counts[text], tuple(self._examples[text])) for text in texts)


@dataclass(frozen=True)
class LabelReport:
    """What became of the entries that are not simply a label's name. Every part is empty for clean data.

    Attributes:
        not_understood: entries that name no label; they are in no clip's vector.
        outside: entries that name one of the 29, but none of the set in use; in no clip's vector either.
        respelt: entries of :data:`SPELLINGS`, read as what they mean.
        misplaced: entries that answer another question, read as what they name.
        contradictory: clips that name phenomena of a topic and say that it has none; the phenomena count.
        unanswered: questions without an answer, read as none.
    """

    not_understood: tuple[Tally, ...] = ()
    outside: tuple[Tally, ...] = ()
    respelt: tuple[Tally, ...] = ()
    misplaced: tuple[Tally, ...] = ()
    contradictory: tuple[Tally, ...] = ()
    unanswered: tuple[Tally, ...] = ()


class LabelReader:
    """Reads answers into the ids of one label set, and keeps count of what a :class:`LabelReport` reports."""

    def __init__(self, labels: LabelSet) -> None:
        self.labels = labels
        self._wanted = frozenset(labels.ids)
        self._tallies = {name: Tallies() for name in LabelReport.__dataclass_fields__}

    def read_answers(self, answers: Mapping[str, object], record: str) -> tuple[str, ...]:
        """The labels in one record's ``q0`` … ``q4``, in the set's order.

        Raises:
            ValueError: none of the set's questions is answered.
        """
        found: list[Label] = []
        unanswered = []
        for question in self.labels.questions:
            key = QUESTIONS[question]
            parts = _parts(answers.get(key))
            if not parts:
                unanswered.append(key)
            found += [label for part in parts if (label := self._look_up(part, question, record)) is not None]
        if len(unanswered) == len(self.labels.questions):
            raise ValueError(f"answers none of {', '.join(unanswered)}")
        for key in unanswered:
            self._tallies["unanswered"].add(key, record)
        present = {label.question for label in found if label.is_phenomenon}
        for label in {label for label in found if label.is_none and label.question in present}:
            self._tallies["contradictory"].add(f"{label.name}, and one", record)
            found = [other for other in found if other != label]
        return self._in_order(found)

    def read_names(self, names: object, record: str) -> tuple[str, ...]:
        """The labels in one list of names or ids, whatever question they answer, in the set's order."""
        found = [label for part in _parts(names) if (label := self._look_up(part, None, record)) is not None]
        return self._in_order(found)

    def report(self) -> LabelReport:
        """What was counted so far."""
        return LabelReport(**{name: tallies.read() for name, tallies in self._tallies.items()})

    def _look_up(self, entry: str, question: int | None, record: str) -> Label | None:
        where = f"{QUESTIONS[question]}: {entry}" if question is not None else entry
        if entry in SPELLINGS:
            self._tallies["respelt"].add(where, record)
        label = _named(SPELLINGS.get(entry, entry), question)
        if label is None:
            self._tallies["not_understood"].add(where, record)
            return None
        if question is not None and label.question != question:
            self._tallies["misplaced"].add(where, record)
        if label.id in self._wanted:
            return label
        # "no obvious … phenomenon" is how the 17 spell none: it belongs to their questions, though not to their vector.
        if not (label.is_none and label.question in self.labels.questions):
            self._tallies["outside"].add(where, record)
            return None
        return label

    def _in_order(self, found: Iterable[Label]) -> tuple[str, ...]:
        ids = {label.id for label in found}
        return tuple(label_id for label_id in self.labels.ids if label_id in ids)


_BY_NAME = {label.name: label for label in LABELS} | {label.id.replace("_", " "): label for label in LABELS}


def _named(entry: str, question: int | None) -> Label | None:
    """The label of a name or id. A bare "yes" or "no" is one only under its own question."""
    if entry in ("yes", "no") and question != 3:
        return None
    if entry == "no obvious phenomenon" and question is not None and question < 3:
        return _BY_NAME[_TABLE[question][-1]]
    return _BY_NAME.get(entry)


def _parts(answer: object) -> list[str]:
    """The entries of an answer given as text or as a list; anything else becomes one entry that nobody understands."""
    if answer is None:
        return []
    if isinstance(answer, str):
        return entries(answer)
    if isinstance(answer, list | tuple):
        return [part for item in answer for part in _parts(item)]
    return [json.dumps(answer, default=str)]
