"""The results as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gpu_parts.results import (
    CardRow,
    ClipRow,
    ExpertsRow,
    FramesRow,
    KernelRow,
    Machine,
    ProfileRow,
    Remark,
    Results,
    State,
    StepRow,
    TrainingRow,
    TransferRow,
    VariantRow,
)

GIB = 2**30
OVERHEAD_AIM, RECORDING_AIM, EXPERTS_AIM = 1.05, 0.01, 1.15
PLAN_AIM = (0.9, 1.1)
_YES_OR_NO = {True: "yes", False: "NO", None: ""}
_BLOCK, _LINEAR = "the block", "one linear layer"  # as benchmarks/experts.py calls them


def as_markdown(results: Results) -> str:
    """The page: what was run, each part's tables, and what could not be measured."""
    sections = [
        _head(results),
        _parts(results),
        _memory(results.rows(ProfileRow)),
        _card(results.rows(CardRow), results.rows(TransferRow)),
        _steps(results.rows(StepRow)),
        _profiles_time(results.rows(ProfileRow)),
        _experts(results.rows(ExpertsRow)),
        _kernels(results.rows(KernelRow)),
        _variants(results.rows(VariantRow)),
        _training(results.rows(TrainingRow)),
        _embedded(results.rows(ClipRow), results.rows(FramesRow)),
        _remarks(results.rows(Remark)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def described(machine: Machine) -> str:
    """A machine in a few words."""
    if not machine.memory:
        return f"CPU, torch {machine.torch}, diffusers {machine.diffusers}"
    return (
        f"{machine.name} ({machine.memory / GIB:.0f} GiB, driver {machine.driver}), torch {machine.torch}, "
        f"diffusers {machine.diffusers}"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown; the first column to the left, the others to the right."""
    marks = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, marks, *rows))


def _head(results: Results) -> str:
    lines = ["# On a GPU", "", f"`python benchmarks/gpu.py`, {results.when}. {described(results.machine)}."]
    if results.machine.small:
        lines += ["", "**Toy sizes: this proves that the parts run. No number here says anything about a model.**"]
    return "\n".join(lines)


def _parts(results: Results) -> str:
    rows = [
        (one.part, str(one.state), f"{one.seconds:.0f}" if one.seconds else "", one.reason.replace("|", "/"))
        for one in results.outcomes
    ]
    done = sum(one.state is State.DONE for one in results.outcomes)
    return f"## What was run\n\n{done} of {len(rows)} parts are done.\n\n" + table(
        ("part", "state", "seconds", "why"), rows
    )


def _memory(rows: Sequence[ProfileRow]) -> str:
    if not rows:
        return ""
    low, high = PLAN_AIM
    met = sum(row.ratio is not None and low <= row.ratio <= high for row in rows)
    cells = [
        (
            f"{row.model} {row.size}, `{row.profile}`, {row.stage}",
            f"{row.predicted / GIB:.2f}",
            f"{row.allocated / GIB:.2f}",
            f"{row.reserved / GIB:.2f}",
            "–" if row.ratio is None else f"{row.ratio:.2f}",
        )
        for row in rows
    ]
    return (
        f"## a. Memory against the plan\n\nGiB at the highest point of each stage. Aim: predicted over measured within "
        f"{low} to {high}; met in {met} of {len(rows)} rows. With tiles only the decoding differs.\n\n"
        + table(("model, profile, stage", "predicted", "measured", "reserved", "predicted ÷ measured"), cells)
    )


def _card(cards: Sequence[CardRow], transfers: Sequence[TransferRow]) -> str:
    lines = [f"- outside the allocator, {row.model}: {row.outside / GIB:.2f} GiB" for row in cards if row.outside]
    lines += [f"- to the card from {row.memory} memory: {row.rate / 1e9:.1f} GB a second" for row in transfers]
    about = "Context, kernels and workspaces, which the plan's reserve is for; and what it assumes of offloading:"
    return f"{about}\n\n" + "\n".join(lines) if lines else ""


def _steps(rows: Sequence[StepRow]) -> str:
    if not rows:
        return ""
    cells = [
        (
            f"{row.model}, {row.tokens:,} tokens",
            *(f"{seconds:.3f}" for seconds in (row.alone, row.with_branch)),
            f"{row.with_branch / row.alone:.3f}",
            f"{row.operations_with / row.operations_alone:.3f}",
            f"**{row.overhead:.3f}**",
            f"{row.recording_share:+.2%}",
            f"{row.operations_with / row.with_branch / 1e12:.0f}",
        )
        for row in rows
    ]
    header = ("model", "s alone", "s with", "time", "operations", "time ÷ operations", "recording", "TFLOP/s")
    return (
        f"## b. A pass with the branch\n\nMedians, in turns. Aims: time over operations at most {OVERHEAD_AIM}, "
        f"recording at most {RECORDING_AIM:.0%} more.\n\n" + table(header, cells)
    )


def _profiles_time(rows: Sequence[ProfileRow]) -> str:
    denoising = [row for row in rows if row.stage == "denoising"]
    fastest = {row.model: row for row in denoising if row.profile == "all"}
    cells = [
        (
            f"{row.model} {row.size}, `{row.profile}`",
            f"{row.seconds:.2f}",
            f"{row.seconds / fastest[row.model].seconds:.2f}×",
            f"{row.planned / fastest[row.model].planned:.2f}×",
        )
        for row in denoising
        if row.model in fastest
    ]
    if not cells:
        return ""
    return (
        "A step in each profile, without what it moves once; the plan assumes a slower card and a slower bus:\n\n"
        + table(("model, profile", "s", "over `all`", "as planned"), cells)
    )


def _experts(rows: Sequence[ExpertsRow]) -> str:
    if not rows:
        return ""
    blocks = [row for row in rows if row.form == _BLOCK]
    met = sum(row.over_linear <= EXPERTS_AIM for row in blocks)
    cells = [
        (
            f"{row.width} × {row.tokens}, {row.passes}: {row.form}",
            f"{1e3 * row.seconds:.2f}",
            "" if row.form == _LINEAR else f"{row.over_linear:.2f}",
        )
        for row in rows
    ]
    return (
        f"## c. The refinement experts\n\nbfloat16, medians. Aim: the block at most {EXPERTS_AIM} times one linear "
        f"layer over the same rows; met in {met} of {len(blocks)} cases.\n\n"
        + table(("width × tokens", "ms", "over one linear layer"), cells)
    )


def _kernels(rows: Sequence[KernelRow]) -> str:
    if not rows:
        return ""
    cells = [
        (
            f"{row.width} × {row.tokens}, {row.passes}: `{row.operation[:80]}`",
            f"{row.microseconds:.0f}",
            f"{row.share:.0%}",
        )
        for row in rows
    ]
    return "Where the time of the block goes, where it misses the aim:\n\n" + table(("operation", "µs", "share"), cells)


def _variants(rows: Sequence[VariantRow]) -> str:
    if not rows:
        return ""
    plain = {row.model: row.seconds for row in rows if row.variant == "as it is"}
    cells = [
        (
            f"{row.model}: {row.variant}",
            f"{row.seconds:.3f}",
            f"{row.seconds / plain[row.model]:.3f}",
            f"{row.first:.1f}",
        )
        for row in rows
        if row.model in plain
    ]
    return "## d. Attention kernels and compiling\n\nA pass with the branch.\n\n" + table(
        ("model, variant", "s", "over as it is", "s, the first"), cells
    )


def _training(rows: Sequence[TrainingRow]) -> str:
    if not rows:
        return ""
    cells = [
        (
            f"`{row.recipe}` {row.size}, {row.strategy}",
            f"{row.seconds:.2f}",
            f"{row.peak / 1e9:.1f}",
            f"{row.held / 1e9:.1f}",
            f"{row.operations / 1e12:.0f}",
            f"{row.operations / row.seconds / 1e12:.0f}",
        )
        for row in rows
    ]
    header = ("recipe", "s a step", "GB, highest", "GB between steps", "TFLOP", "TFLOP/s")
    return "## e. Training\n\nOne clip, gradient checkpointing; docs/training.md has the estimates.\n\n" + table(
        header, cells
    )


def _embedded(clips: Sequence[ClipRow], frames: Sequence[FramesRow]) -> str:
    if not clips and not frames:
        return ""
    text = ["## f. The embedded model"]
    if clips:
        text.append(table(("made by, clip", "s"), [(f"{row.by}: {row.clip}", f"{row.seconds:.2f}") for row in clips]))
    if frames:
        cells = [
            (
                row.dtype,
                str(row.largest),
                f"{row.mean:.3f}",
                "" if row.within is None else "yes" if row.within else "NO",
            )
            for row in frames
        ]
        text.append("Frames beside those of the CPU in float32, in steps of 1/255:")
        text.append(table(("on the device", "largest", "mean", "within the tolerance"), cells))
    return "\n\n".join(text)


def _remarks(rows: Sequence[Remark]) -> str:
    return "## What could not be measured\n\n" + "\n".join(f"- {row.text}" for row in rows) if rows else ""
