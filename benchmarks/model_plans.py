"""Run with: python benchmarks/model_plans.py

What ``prophy plan`` says of every published model on cards of 8, 12, 24, 48 and 80 GiB: the profile it would choose,
its peak and its slow-down; and each profile's peak. Writes the tables to model_plans.md beside it; the first of them,
and the comments of the commands by card, also to docs/models.md. A test compares both. Nothing is downloaded and
nothing generated: every number follows from shapes. "Measured on" names the card of gpu.json, once there is such a
file, and between what the plan's peaks over the measured ones lay.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from gpu_parts.results import ProfileRow, Results

from prophy.catalogue.limits import ClipSize
from prophy.catalogue.published import PUBLISHED
from prophy.memory.peaks import PartSize
from prophy.memory.plan import GIB, Plan, choose, plan
from prophy.memory.profiles import PROFILES

ROOT = Path(__file__).resolve().parents[1]
HERE, GUIDE = ROOT / "benchmarks" / "model_plans.md", ROOT / "docs" / "models.md"
MEASURED = ROOT / "benchmarks" / "gpu.json"
BEGIN, END = "<!-- written by benchmarks/model_plans.py: begin -->", "<!-- end -->"
CARDS = (8, 12, 24, 48, 80)
SMALLER = {name: ClipSize(832, 480, 81) for name in ("wan2.1-14b", "wan2.2-a14b")} | {
    "wan2.2-ti2v-5b": ClipSize(704, 480, 81)
}


def cases() -> list[tuple[str, ClipSize]]:
    """Each model with its recommended clip, and the large ones with a smaller."""
    recommended = [(name, model.defaults.clip) for name, model in PUBLISHED.items()]
    return sorted([*recommended, *SMALLER.items()], key=lambda case: list(PUBLISHED).index(case[0]))


def size(clip: ClipSize) -> str:
    return f"{clip.width}x{clip.height}x{clip.frames}"


def choice(made: Plan, vram: int) -> str:
    chosen, _ = choose(made.profiles, vram * GIB)
    if chosen is None:
        least = min(entry.peak.total for entry in made.profiles) + made.reserve
        return f"none: needs {least / GIB:.1f}"
    entry = made.of(chosen)
    return f"`{chosen}` {entry.peak.total / GIB:.1f}, {entry.slow_down:.2f}×"


def measured(name: str, clip: ClipSize) -> str:
    """The card that the peaks were measured on, and predicted over measured; empty where nothing was."""
    if not MEASURED.is_file():
        return ""
    results = Results.load(MEASURED)
    rows = [row for row in results.rows(ProfileRow) if (row.model, row.size) == (name, size(clip))]
    ratios = [row.ratio for row in rows if row.ratio is not None]
    return f"{results.machine.name}: {min(ratios):.2f} to {max(ratios):.2f}" if ratios else ""


def weight(part: PartSize) -> str:
    return f"{part.nbytes / GIB:.1f}" if part.count == 1 else f"{part.count} × {part.nbytes / GIB:.1f}"


def total(made: Plan) -> str:
    return f"{sum(part.nbytes * part.count for part in made.parts) / GIB:.1f}"


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@cache
def planned(name: str, clip: ClipSize) -> Plan:
    return plan(name, clip)


def tables() -> str:
    """The text of model_plans.md."""
    made = {case: planned(*case) for case in cases()}
    named = {case: f"`--model {case[0]} --size {size(case[1])}`" for case in made}
    chosen = [[named[case], *(choice(one, card) for card in CARDS)] for case, one in made.items()]
    peaks = [
        [named[case], *(f"{one.of(profile).peak.total / GIB:.1f}" for profile in PROFILES)]
        for case, one in made.items()
    ]
    weights = [[named[case], *map(weight, one.parts), total(one)] for case, one in made.items()]
    parts = [part.name for part in next(iter(made.values())).parts]
    return "\n\n".join(
        (
            f"# What the plan says of the published models\n\n{__doc__.strip()}",
            "Profile, peak in GiB and slow-down, by the card's GiB (`--vram`):",
            table(["`prophy plan …`", *map(str, CARDS)], chosen),
            "Peak of each profile, GiB:",
            table(["`prophy plan …`", *(f"`{profile}`" for profile in PROFILES)], peaks),
            "Weights in bfloat16, GiB; together they lie in host memory in every profile but `all`:",
            table(["`prophy plan …`", *parts, "together"], weights) + "\n",
        )
    )


def guide(text: str) -> str:
    """docs/models.md with the table between its two marks, and the comment behind each command by card, as of now."""
    rows = [
        [
            f"`{name}` `{size(clip)}`",
            *(choice(planned(name, clip), card) for card in CARDS),
            measured(name, clip),
        ]
        for name, clip in cases()
    ]
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    lines, card = [], 0
    for line in after.split("\n"):
        if heading := re.match(r"# (\d+) GB", line):
            card = int(heading[1])
        elif card and line.startswith("prophy generate"):
            line = commented(line, card)
        elif line.startswith("```"):
            card = 0
        lines.append(line)
    shown = table(["`--model`, `--size`", *map(str, CARDS), "measured on"], rows)
    return f"{before}{BEGIN}\n{shown}\n{END}" + "\n".join(lines)


def commented(line: str, card: int) -> str:
    """A ``prophy generate`` line with the profile that fits the card, and its peak."""
    command = line.partition("  #")[0].rstrip()
    flags = dict(re.findall(r"--(\w+) (\S+)", command))
    own = PUBLISHED[flags["model"]].defaults.clip
    clip = ClipSize(*(int(flags.get(name, getattr(own, name))) for name in ("width", "height", "frames")))
    chosen, _ = choose(planned(flags["model"], clip).profiles, card * GIB)
    if chosen is None:
        raise ValueError(f"{command}: no profile fits {card} GiB: print a smaller clip")
    peak = planned(flags["model"], clip).of(chosen).peak.total
    return f"{command}  # {chosen}, {peak / GIB:.1f} GiB"


def main() -> None:
    HERE.write_text(tables())
    GUIDE.write_text(guide(GUIDE.read_text()))
    print(tables())


if __name__ == "__main__":
    main()
