"""Run with: python benchmarks/twins.py

Does each impossible twin break its own law and no other, by the trackers' verdict, and do lawful renders obey? Each row
(a scene's lawful renders, or one law's twins) is kept in --work once it is measured: run it again to go on, or to write
the table anew. Writes the table to twins.md beside it. With --scene only that scene is measured, and the other rows of
the table stay as they are.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import cv2

from prophy.evaluation.judges.trackers import LAWS, obeyed
from prophy.files import write_text
from prophy.phenomena import by_id
from prophy.worlds import TWINS, Broken, Stage, sample_clip
from prophy.worlds.pairs import Scene, showing

OWN, OTHERS, LAWFUL = 95, 10, 99  #: per cent: twins that break their law, at least; its others, at most; lawful renders


@dataclass(frozen=True)
class MeasuredRow:
    """Renders of one scene, all lawful or all breaking one law.

    Attributes:
        clips: how many.
        broken: by law, how many of them break it.
    """

    clips: int
    broken: dict[str, int]


def verdict(found: tuple[int, int], law: str | None, split: str, stage: Stage) -> dict[str, bool]:
    """Which laws one render obeys."""
    seed, event = found
    clip = sample_clip(seed, split, stage=stage, broken=None if law is None else Broken(law, event))
    return obeyed(clip.frames, clip.scenario.events[event], clip.scenario.setting, stage)


def measure(path: Path, make: partial, clips: list[tuple[int, int]], executor: ProcessPoolExecutor) -> MeasuredRow:
    """Read a row, or measure and write it."""
    if path.is_file():
        row = MeasuredRow(**json.loads(path.read_text(encoding="utf-8")))
        if row.clips == len(clips):
            return row
    verdicts = list(executor.map(make, clips, chunksize=8))
    row = MeasuredRow(len(clips), {law: sum(not one[law] for one in verdicts) for law in verdicts[0]})
    write_text(path, json.dumps(asdict(row)))
    return row


def file_name(split: str, stage: Stage, scene: Scene, law: str | None) -> str:
    """Of a row."""
    words = f"{split} {stage.width}x{stage.height}x{stage.frames}@{stage.fps} {' '.join(scene)} {law or 'lawful'}"
    return words.replace(" ", "-") + ".json"


def per_cent(count: int, clips: int) -> str:
    return f"{100 * count / clips:.1f}".removesuffix(".0")


def lines_of(path: Path, command: str) -> dict[tuple[str, str], str]:
    """The rows of a table that was written before, by scene and law.

    Raises:
        ValueError: another command wrote it.
    """
    text = path.read_text(encoding="utf-8")
    if f"`{command}`" not in text:
        raise ValueError(f"{path} is not of `{command}`: measure every scene, without --scene")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| scene |")]
    return {(row.split(" | ")[0].removeprefix("| "), row.split(" | ")[1]): row for row in rows}


def table(
    rows: dict[tuple[Scene, str | None], MeasuredRow],
    command: str,
    stage: Stage,
    split: str,
    before: dict[tuple[str, str], str],
) -> str:
    """The measured rows in Markdown, and those of a table written before that were not measured now."""
    clips = next(iter(rows.values())).clips
    lines, waiting = [], 0
    for scene, laws in LAWS.items():
        for law in laws:
            if (scene, None) not in rows or (scene, law.name) not in rows:
                known = before.get((f"{by_id(scene[0]).name} ({scene[1]})", law.name))
                lines += [known] if known else []
                waiting += known is None
                continue
            lawful, row = rows[scene, None], rows[scene, law.name]
            others = max((row.broken[other.name] for other in laws if other is not law), default=0)
            own, kept = row.broken[law.name], lawful.clips - lawful.broken[law.name]
            met = 100 * own >= OWN * clips and 100 * others <= OTHERS * clips and 100 * kept >= LAWFUL * clips
            lines.append(
                f"| {by_id(scene[0]).name} ({scene[1]}) | {law.name} | {TWINS[scene][law.name].seen}"
                f" | {per_cent(own, clips)} | {per_cent(others, clips) if len(laws) > 1 else '–'}"
                f" | {per_cent(kept, clips)}{'' if met else ' (missed)'} |"
            )
    missed = sum(line.endswith("(missed) |") for line in lines)
    anew = ", ".join(dict.fromkeys(f"{by_id(scene[0]).name} ({scene[1]})" for scene, _ in rows))
    return "\n".join(
        [
            "# Impossible twins",
            "",
            f"`{command}`, {datetime.now(UTC):%Y-%m-%d}.",
            f"{clips} renders a law and a scene, {stage}, split `{split}`, by the trackers' verdict; a lost track",
            "breaks every law of its scene. Clips of one and of two events as they come; of two, one breaks its law.",
            "",
            f"Wanted: each twin breaks its law in at least {OWN} %, each other law of its scene in at most {OTHERS} %;",
            f"lawful renders obey each law in at least {LAWFUL} %."
            f" {'Met by all' if not missed else f'Missed by {missed}'} of the {len(lines)} laws measured.",
            *([f"{waiting} laws wait to be measured."] if waiting else []),
            *([f"Measured on that day, with `--scene`: {anew}; the other rows before."] if before else []),
            "",
            "| scene | law | its twin | breaks it, % | breaks another, %, the worst | lawful renders obey, % |",
            "|---|---|---|---:|---:|---:|",
            *lines,
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=200, help="renders a law and a scene (default: 200)")
    parser.add_argument("--size", default="192x128x17", metavar="WxHxF", help="of the clips (default: 192x128x17)")
    parser.add_argument("--fps", type=int, default=8, help="frames a second (default: 8)")
    parser.add_argument("--split", default="test", help="of the worlds; twins were made by looking at train")
    variants = [variant for _, variant in LAWS]
    parser.add_argument("--scene", action="append", choices=variants, metavar="VARIANT", help="only this one; repeat")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--minutes", type=float, help="measure for so long; a later call goes on (default: all)")
    parser.add_argument("--work", type=Path, default=Path("runs/twins"), help="where measured rows are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"), help="where the table goes")
    arguments = parser.parse_args()
    stage, split = Stage.parse(arguments.size, arguments.fps), arguments.split
    arguments.work.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    command = f"python benchmarks/twins.py --clips {arguments.clips} --size {arguments.size} --fps {arguments.fps}"
    command += f" --split {split}"
    before = lines_of(arguments.out, command) if arguments.scene else {}
    clips = showing(split, arguments.clips)
    rows: dict[tuple[Scene, str | None], MeasuredRow] = {}
    with ProcessPoolExecutor(arguments.workers, initializer=cv2.setNumThreads, initargs=(1,)) as executor:
        for scene, laws in LAWS.items():
            if arguments.scene and scene[1] not in arguments.scene:
                continue
            for law in (None, *(law.name for law in laws)):
                path = arguments.work / file_name(split, stage, scene, law)
                late = arguments.minutes is not None and time.monotonic() - begin > 60 * arguments.minutes
                if late and not path.is_file():
                    continue
                make = partial(verdict, law=law, split=split, stage=stage)
                rows[scene, law] = measure(path, make, clips[scene], executor)
                print(f"{scene[1]}: {law or 'lawful'}: broken {rows[scene, law].broken}", flush=True)
    text = table(rows, command, stage, split, before)
    write_text(arguments.out, text)
    print(text)


if __name__ == "__main__":
    main()
