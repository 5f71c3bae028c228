"""What is shown of the public benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prophy.evaluation.report.plots import bars
from prophy.evaluation.report.table import Body, Cell, Headline, Table, points, row, share, signed, verdict
from prophy.evaluation.results import Interval, Result
from prophy.evaluation.results.vbench import VBenchResult
from prophy.evaluation.results.videophy2 import Differences, Subset, VideoPhy2Comparison, VideoPhy2Result


def videophy2(result: VideoPhy2Result) -> Body:
    """PC, SA and Joint over all prompts and over the hard ones."""
    subsets, protocol, name = {"ALL": result.everything, "HARD": result.hard}, result.protocol, _run(result)
    rows = tuple(
        row(prompts, share(s.pc), share(s.sa), share(s.joint), f"{s.unscored_pc}, {s.unscored_sa}")
        for prompts, s in subsets.items()
    )
    return Body(
        f"VideoPhy2: {name}",
        (Table("", ("prompts", "PC (95 %)", "SA (95 %)", "Joint (95 %)", "unscored PC, SA"), rows),),
        (bars(f"VideoPhy2, {name}", "% of videos", _by_measure(subsets, share)),),
        (Headline(f"VideoPhy2 Joint, {name}", share(result.everything.joint), f"judge {result.judge}"),),
        notes=(
            f"judge {result.judge}; prompt set {protocol.prompts_sha256}; text {protocol.text_field}; "
            f"n={protocol.prompts}; seed {protocol.seed}; branch {'on' if protocol.branch else 'off'}",
            "numbers of other papers do not compare: other judges, captions and prompt files",
        ),
    )


def videophy2_comparison(result: VideoPhy2Comparison) -> Body:
    """Paired differences over all prompts and over the hard ones."""
    subsets, name = {"ALL": result.everything, "HARD": result.hard}, _run(result)
    rows = tuple(row(prompts, signed(s.pc, 4), signed(s.sa, 4), signed(s.joint, 4)) for prompts, s in subsets.items())
    joint = result.everything.joint
    return Body(
        f"VideoPhy2, paired: {name}",
        (Table("", ("prompts", "PC", "SA", "Joint"), rows),),
        (bars(f"VideoPhy2, {name}", "difference, %", _by_measure(subsets, points)),),
        (Headline(f"VideoPhy2 Joint, {name}", signed(joint, 4), verdict(joint)),),
    )


def _run(result: Result) -> str:
    """The name that a result's file has after that of the benchmark."""
    return (result.made_by.name or "").removeprefix("videophy2-")


def _by_measure(subsets: Mapping[str, Subset | Differences], cell: Callable[[Interval], Cell]) -> Table:
    rows = (
        row("PC", *(cell(subset.pc) for subset in subsets.values())),
        row("SA", *(cell(subset.sa) for subset in subsets.values())),
        row("Joint", *(cell(subset.joint) for subset in subsets.values())),
    )
    return Table("", ("measure", *subsets), rows)


def vbench(result: VBenchResult) -> Body:
    """Every dimension, and the quality score."""
    dimensions = Table(
        "",
        ("dimension", "raw", "normalised"),
        tuple(row(name, share(raw), share(result.normalised[name])) for name, raw in result.raw.items()),
    )
    alike = len({*result.counts.values()}) < 2
    fewest = f"{min(result.counts.values(), default=result.videos)} to "
    videos = f"{result.videos} videos" if alike else f"{fewest}{result.videos} videos a dimension"
    counted = Table(
        "",
        (*dimensions.header, "videos"),
        tuple(
            row(name, share(raw), share(result.normalised[name]), str(result.counts.get(name, result.videos)))
            for name, raw in result.raw.items()
        ),
    )
    return Body(
        "VBench quality",
        (counted.with_rows(row("quality", share(None), share(result.quality), "")),),
        (bars("VBench", "%", dimensions),),
        (Headline("VBench quality", share(result.quality), videos),),
        notes=(videos,),
    )
