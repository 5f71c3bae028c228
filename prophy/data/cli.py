"""``prophy data report``: what is in a data set, what was not understood, and what the filters would remove."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

from prophy.data.folder import read_folder
from prophy.data.labels import LabelReport, Tally, label_set
from prophy.data.records import (
    ClipRecord,
    Fault,
    FilterCount,
    Filters,
    Reading,
    apply_filters,
    count_labels,
    random_subset,
)
from prophy.data.wisa import read_wisa
from prophy.flags import seeds, whole

_BAR = 40  #: characters
_SHOWN = 12  #: texts of a kind
_HEADINGS = {
    "not_understood": "not understood, in no clip's labels",
    "outside": "WISA's, but outside these labels",
    "respelt": "spelling variants, read as what they mean",
    "misplaced": "under another question, read as what they name",
    "contradictory": "contradictory, the phenomena count",
    "unanswered": "unanswered, read as none",
}


def main(argv: list[str]) -> None:
    """Run one command.

    Raises:
        ValueError, OSError: an input is missing or does not fit; one line that names the cure.
    """
    arguments = build_parser().parse_args(argv)
    arguments.run(arguments)


def build_parser() -> argparse.ArgumentParser:
    """Every command and its flags."""
    parser = argparse.ArgumentParser(prog="prophy data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    report = commands.add_parser("report", help="records, labels, faults, filters")
    report.add_argument("path", type=Path, metavar="PATH", help="metadata file, or the folder it is in")
    report.add_argument(
        "--format",
        choices=("wisa", "folder"),
        default="wisa",
        help="wisa: WISA-80K's metadata (default); folder: clips with a table of the columns file,caption",
    )
    report.add_argument("--labels", type=int, choices=(17, 29), default=17, help="phenomena, or all of WISA's answers")
    report.add_argument("--videos", type=Path, metavar="DIR", help="wisa: leave out clips whose video is not in here")
    report.add_argument("--min-duration", type=float, metavar="S", help="seconds")
    report.add_argument("--max-duration", type=float, metavar="S", help="seconds")
    report.add_argument("--min-width", type=float, metavar="PX", help="pixels")
    report.add_argument("--max-text-boxes", type=float, metavar="N", help="boxes of written text in the picture")
    report.add_argument(
        "--drop-unstated", action="store_true", help="the filters also remove clips that do not state what they ask"
    )
    report.add_argument(
        "--sample", type=whole, metavar="N", help="a random subset of what is left; the paper's is 20000"
    )
    report.add_argument("--seed", type=seeds, default=0, help="of the subset (default: 0)")
    report.add_argument("--json", action="store_true", help="everything as JSON, every fault included")
    report.set_defaults(run=_report)
    return parser


def _report(arguments: argparse.Namespace) -> None:
    filters = Filters(
        arguments.min_duration,
        arguments.max_duration,
        arguments.min_width,
        arguments.max_text_boxes,
        keep_unstated=not arguments.drop_unstated,
    )
    labels = label_set(arguments.labels)
    if arguments.format == "wisa":
        reading = read_wisa(arguments.path, labels=labels, videos=arguments.videos)
    elif arguments.videos is not None:
        raise ValueError("--videos changes nothing in a folder of clips: leave it out")
    else:
        reading = read_folder(arguments.path, labels=labels)
    clips, counts = apply_filters(reading.records, filters)
    if arguments.sample is not None:
        clips = random_subset(clips, arguments.sample, arguments.seed)
    if arguments.json:
        print(json.dumps(_as_json(reading, counts, clips), indent=2))
    else:
        print("\n".join(_lines(reading, counts, clips)))


def _as_json(reading: Reading, counts: Sequence[FilterCount], clips: Sequence[ClipRecord]) -> dict[str, object]:
    return {
        "rows": reading.rows,
        "records": len(reading.records),
        "label_set": reading.labels.version,
        "filters": [asdict(count) for count in counts],
        "clips": len(clips),
        "labels": count_labels(clips, reading.labels),
        "without_label": sum(record.labels == () for record in clips),
        "label_unknown": sum(record.labels is None for record in clips),
        "label_report": asdict(reading.label_report),
        "notes": [asdict(note) for note in reading.notes],
        "faults": [fault._asdict() for fault in reading.faults],
        "unnamed_videos": [str(path) for path in reading.unnamed_videos],
    }


def _lines(reading: Reading, counts: Sequence[FilterCount], clips: Sequence[ClipRecord]) -> list[str]:
    lines = [f"rows       {reading.rows:,}", f"records    {len(reading.records):,}"]
    for count in counts:
        left = "kept" if count.unstated_kept else "removed too"
        name = f"--{count.name.replace('_', '-')} {count.bound:g}"
        lines.append(f"filter     {name}: {count.removed:,} removed, {count.unstated:,} do not state it, {left}")
    lines.append(f"clips      {len(clips):,}")
    lines += _bars(count_labels(clips, reading.labels), f"labels ({reading.labels.version})")
    none, unknown = sum(record.labels == () for record in clips), sum(record.labels is None for record in clips)
    lines.append(f"  {'none of them':<36} {none:>8,}")
    if unknown:
        lines.append(f"  {'nobody said':<36} {unknown:>8,}")
    for name in LabelReport.__dataclass_fields__:
        lines += _tallies(_HEADINGS[name], getattr(reading.label_report, name))
    lines += _tallies("noted while reading", reading.notes)
    lines += _faults(reading.faults)
    if reading.unnamed_videos:
        names = ", ".join(path.name for path in reading.unnamed_videos[:3])
        lines += ["", f"videos that no row names: {len(reading.unnamed_videos):,}, such as {names}"]
    return lines


def _bars(counts: dict[str, int], heading: str) -> list[str]:
    most = max(counts.values()) or 1
    return ["", heading] + [
        f"  {name:<36} {count:>8,}  {'#' * -(-_BAR * count // most)}".rstrip() for name, count in counts.items()
    ]


def _tallies(heading: str, tallies: Sequence[Tally]) -> list[str]:
    if not tallies:
        return []
    lines = ["", f"{heading}: {sum(tally.count for tally in tallies):,}"]
    for tally in tallies[:_SHOWN]:
        lines.append(f"  {_printable(tally.text):<36} {tally.count:>8,}  in {_printable(', '.join(tally.examples))}")
    if len(tallies) > _SHOWN:
        lines.append(f"  and {len(tallies) - _SHOWN:,} more; --json has all")
    return lines


def _faults(faults: Sequence[Fault]) -> list[str]:
    if not faults:
        return []
    lines = ["", f"rows left out: {len(faults):,}"]
    ordered = sorted(faults, key=lambda fault: fault.reason)
    groups = [(reason, list(group)) for reason, group in groupby(ordered, key=lambda fault: fault.reason)]
    for reason, group in sorted(groups, key=lambda item: -len(item[1])):
        lines.append(f"  {reason:<36} {len(group):>8,}")
        lines += [f"    {_printable(str(fault))}" for fault in group[:2]]
    return lines


def _printable(text: str) -> str:
    """Data may hold anything; a terminal should not obey it."""
    return "".join(character if character.isprintable() else " " for character in text)
