"""What was measured, as values, and as ``gpu.json`` holds them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeAlias

from prophy.files import write_text

SCHEMA = 1


@dataclass(frozen=True)
class Machine:
    """Where it was measured.

    Attributes:
        name: of the card, or ``CPU``.
        memory: bytes of the card; 0 on a CPU.
        driver: of the card; empty on a CPU.
        torch: version.
        diffusers: version.
        small: toy sizes, to prove that the parts run; no number of it says anything.
    """

    name: str
    memory: int
    driver: str
    torch: str
    diffusers: str
    small: bool


@dataclass(frozen=True)
class ProfileRow:
    """One stage of a generation in one memory profile.

    Attributes:
        model: its short name.
        size: of the clip, WIDTHxHEIGHTxFRAMES.
        profile: memory profile.
        stage: of the generation.
        predicted: bytes by the plan.
        allocated: bytes of tensors at the highest point; on a CPU what the process took.
        reserved: bytes that the allocator had taken from the card then.
        seconds: of the whole stage; of denoising of one step, with the branch's.
        planned: seconds of that step by the plan, at the speeds that it assumes; 0 of other stages.
    """

    model: str
    size: str
    profile: str
    stage: str
    predicted: int
    allocated: int
    reserved: int
    seconds: float
    planned: float

    @property
    def ratio(self) -> float | None:
        """Predicted over measured; None where the process took nothing new."""
        return self.predicted / self.allocated if self.allocated else None


@dataclass(frozen=True)
class CardRow:
    """Bytes of the card that a process holds beside its allocator's: context, kernels, libraries' workspaces."""

    model: str
    outside: int


@dataclass(frozen=True)
class TransferRow:
    """How fast weights come to the card: bytes a second, from memory that is ``pinned`` or ``pageable``."""

    memory: str
    rate: float


@dataclass(frozen=True)
class StepRow:
    """One pass of a backbone.

    Attributes:
        model: its short name.
        tokens: of the clip.
        repeats: passes of each kind, in turns; the seconds are their medians.
        alone: seconds without the branch.
        with_branch: seconds with it.
        recording: seconds with it, its routing recorded.
        operations_alone: floating-point operations without the branch.
        operations_with: and with it.
    """

    model: str
    tokens: int
    repeats: int
    alone: float
    with_branch: float
    recording: float
    operations_alone: int
    operations_with: int

    @property
    def overhead(self) -> float:
        """Time over operations: 1 is what the operations alone explain."""
        return self.with_branch / self.alone / (self.operations_with / self.operations_alone)

    @property
    def recording_share(self) -> float:
        return self.recording / self.with_branch - 1


@dataclass(frozen=True)
class ExpertsRow:
    """One way to write the refinement block, at one width.

    Attributes:
        width: of the hidden states.
        tokens: rows.
        dtype: of both.
        passes: ``forward``, or ``forward and backward``.
        form: which way.
        seconds: median.
        over_linear: of the time of one dense linear layer over the same k·N rows.
    """

    width: int
    tokens: int
    dtype: str
    passes: str
    form: str
    seconds: float
    over_linear: float


@dataclass(frozen=True)
class KernelRow:
    """Where the time of the block goes: one operation, its microseconds in a pass, and its share."""

    width: int
    tokens: int
    passes: str
    operation: str
    microseconds: float
    share: float


@dataclass(frozen=True)
class VariantRow:
    """A pass of a backbone with its branch, computed another way.

    Attributes:
        model: its short name.
        variant: ``as it is``, ``compiled``, or an attention backend.
        seconds: median of a pass.
        first: seconds of the first pass, compilation included.
    """

    model: str
    variant: str
    seconds: float
    first: float


@dataclass(frozen=True)
class TrainingRow:
    """A training step.

    Attributes:
        recipe: its name.
        size: of the clip.
        strategy: ``one process`` or ``FSDP2``.
        seconds: median of a step.
        peak: bytes at the highest point of a step; on a CPU above what the process took before.
        held: bytes between two steps: weights, gradients' room, moments and average.
        operations: of a step, as docs/training.md counts them.
    """

    recipe: str
    size: str
    strategy: str
    seconds: float
    peak: int
    held: int
    operations: int


@dataclass(frozen=True)
class ClipRow:
    """Seconds of a clip of the embedded model: what made it, and which clip it was."""

    by: str
    clip: str
    seconds: float


@dataclass(frozen=True)
class FramesRow:
    """Frames of the embedded model on the device beside those of the CPU in float32, in steps of 1/255.

    Attributes:
        dtype: on the device.
        largest: difference.
        mean: difference.
        within: whether that is within the tolerance; None where none is stated.
    """

    dtype: str
    largest: int
    mean: float
    within: bool | None


@dataclass(frozen=True)
class Remark:
    """Something that could not be measured, and why: one line."""

    text: str


Row: TypeAlias = (
    ProfileRow
    | CardRow
    | TransferRow
    | StepRow
    | ExpertsRow
    | KernelRow
    | VariantRow
    | TrainingRow
    | ClipRow
    | FramesRow
    | Remark
)
_KINDS: dict[str, type] = {kind.__name__: kind for kind in Row.__args__}


class State(StrEnum):
    """How a part ended."""

    DONE = "done"
    SKIPPED = "skipped"  #: it cannot run on this machine
    CUT = "cut"  #: by its time limit; its rows so far are kept
    FAILED = "failed"
    WAITING = "waiting"  #: for a run with time left


#: States of parts that another run of the command does not repeat.
SETTLED = (State.DONE, State.SKIPPED)


@dataclass(frozen=True)
class Outcome:
    """What became of a part.

    Attributes:
        part: its name.
        state: how it ended.
        reason: why, in one line; empty when it is done.
        seconds: it took.
        rows: what it measured.
    """

    part: str
    state: State
    reason: str = ""
    seconds: float = 0.0
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True)
class Results:
    """Everything that was measured on one machine; when is the day of its last part."""

    machine: Machine
    when: str
    outcomes: tuple[Outcome, ...] = field(default=())

    def of(self, part: str) -> Outcome | None:
        """A part's outcome, if there is one."""
        return next((one for one in self.outcomes if one.part == part), None)

    def rows(self, kind: type[Row]) -> list[Any]:
        """Every row of one kind."""
        return [row for outcome in self.outcomes for row in outcome.rows if isinstance(row, kind)]

    def with_outcome(self, outcome: Outcome, when: str) -> Results:
        """The same with a part's outcome, in place of an earlier one."""
        others = [one for one in self.outcomes if one.part != outcome.part]
        return replace(self, when=when, outcomes=(*others, outcome))

    def save(self, path: Path) -> None:
        """Write JSON, whole or not at all."""
        record = {
            "schema": SCHEMA,
            "machine": asdict(self.machine),
            "when": self.when,
            "outcomes": [
                {**asdict(one), "rows": [{"kind": type(row).__name__, **asdict(row)} for row in one.rows]}
                for one in self.outcomes
            ],
        }
        write_text(path, json.dumps(record, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: damaged, or of another release. One line.
        """
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["schema"] != SCHEMA:
                raise ValueError(f"schema {record['schema']}, not {SCHEMA}")
            outcomes = tuple(
                Outcome(
                    **{**one, "state": State(one["state"]), "rows": tuple(_row(dict(row)) for row in one["rows"])},
                )
                for one in record["outcomes"]
            )
            return cls(Machine(**record["machine"]), record["when"], outcomes)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} holds no results that this release reads ({error}): move it away") from None


def _row(record: dict[str, Any]) -> Row:
    return _KINDS[record.pop("kind")](**record)
