"""VideoPhy2: the official judge's input, and a strict reading of its output.

    prophy evaluate videophy2 score runs/videophy2/prompts.json runs/videophy2/prophy --sa sa_out.csv --pc pc_out.csv

The judge (VideoPhy-2-AutoEval) runs in its own environment, from the user's own checkout. It writes a CSV with a
``score`` for each video. Here a score is one whole number from 1 to 5; anything else, and a video that the judge left
out, is *unscored* and counted. It never becomes a zero. (A published version of the judge's script reads only the
first 20 rows of its input, and writes 0 where it cannot parse an answer: both show up as unscored here.)

PC and SA are the shares of videos with a score of at least 4, Joint of those with both. Shares are over the videos that
are scored, and the unscored ones stand beside them. Scores of different papers do not compare: different judges,
captions and prompt files circulate. Compare two runs of one protocol, prompt by prompt.
"""

from __future__ import annotations

import csv
import io
import logging
import re
from pathlib import Path

import numpy as np

from prophy.data.tables import read_mended_text
from prophy.evaluation.benchmarks.prompts import PromptSet, columns
from prophy.evaluation.benchmarks.videos import missing_videos
from prophy.evaluation.measures.metrics import bootstrap
from prophy.evaluation.results.protocol import Protocol
from prophy.evaluation.results.videophy2 import Differences, Score, Subset, VideoPhy2Comparison, VideoPhy2Result
from prophy.files import file_sha256, some_of, write_text

log = logging.getLogger(__name__)

GOOD = 4  #: the lowest score that counts
JUDGE = "VideoPhy-2-AutoEval"
_CAPTION_FREE = ("model_sha256", "branch")  # what two runs of one protocol may differ in


def write_judge_inputs(prompts: PromptSet, videos: Path, out: Path) -> tuple[Path, Path]:
    """Write ``sa.csv`` and ``pc.csv``, each ``caption,videopath`` with absolute paths.

    Raises:
        ValueError: prompts of another benchmark, or a video is missing.
    """
    _check_benchmark(prompts)
    if missing := missing_videos(prompts, videos):
        raise ValueError(
            f"{len(missing)} of {len(prompts.prompts)} videos are missing in {videos}, the first is {missing[0]}.mp4: "
            "generate them first"
        )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["caption", "videopath"])
    for prompt in prompts.prompts:
        writer.writerow([prompt.caption, str((Path(videos) / f"{prompt.stem}.mp4").resolve())])
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    paths = (out / "sa.csv", out / "pc.csv")
    for path in paths:
        write_text(path, text.getvalue())
    return paths


def parse_score(text: str | None) -> Score:
    """One whole number from 1 to 5, or None: unscored.

    The judge's script keeps its scores in a column of floats: ``4.0`` is 4. Text may stand around the number; a second
    number, a fraction, a number out of range or none makes it unscored.
    """
    numbers = re.findall(r"[-+]?\d+(?:[.,]\d+)?(?:e[-+]?\d+)?", (text or "").lower())
    if len(numbers) != 1 or not re.fullmatch(r"[1-5](?:\.0+)?", numbers[0]):
        return None
    return int(numbers[0][0])


def read_scores(path: Path, prompts: PromptSet, videos: Path | None = None) -> dict[str, Score]:
    """Scores of a judge's output by the video's stem; None where it left a video out or gave no legal score.

    Args:
        path: what the judge wrote.
        prompts: of the run.
        videos: the run's folder; where the judge names one of another name, that is logged: two runs of one set of
            prompts have videos of the same names.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no ``videopath`` or ``score`` column, a video of other prompts, or one that stands twice.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run the judge on the CSV that `generate` wrote")
    text, _ = read_mended_text(path)
    rows = list(columns(path, text, ("score", "videopath"), "give the judge's output, not its input"))
    scores: dict[str, Score] = {prompt.stem: None for prompt in prompts.prompts}
    seen: set[str] = set()
    elsewhere: set[str] = set()
    for row in rows:
        *folders, name = re.split(r"[/\\]", row["videopath"] or "")
        stem = name.removesuffix(".mp4")
        if stem not in scores:
            raise ValueError(f"{path} scores {stem}, which is no video of these prompts: give the run's own output")
        if stem in seen:
            raise ValueError(f"{path} scores {stem} twice: judge each video once")
        seen.add(stem)
        scores[stem] = parse_score(row["score"])
        if folders and videos is not None and folders[-1] != videos.resolve().name:
            elsewhere.add(folders[-1])
    if elsewhere:
        log.warning(
            "%s scores videos in %s, not in %s: is it of another run?", path, some_of(sorted(elsewhere)), videos
        )
    return scores


def score_run(prompts: PromptSet, videos: Path, sa: Path, pc: Path, work: Path | None = None) -> VideoPhy2Result:
    """Read the judge's two outputs; writes ``videophy2.json`` beside the videos, and for the report under ``work``.

    Returns:
        The result as it was last written: its name says where.

    Raises:
        ValueError: videos of other prompts, or outputs that do not fit; see :func:`read_scores`.
    """
    _check_benchmark(prompts)
    protocol = Protocol.load(videos)
    if protocol.prompts_sha256 != prompts.sha256:
        raise ValueError(f"{videos} was generated from other prompts: give the prompt file of that run")
    by_sa, by_pc = (read_scores(path, prompts, Path(videos)) for path in (sa, pc))
    scores = {prompt.stem: (by_sa[prompt.stem], by_pc[prompt.stem]) for prompt in prompts.prompts}
    hard = {prompt.stem for prompt in prompts.prompts if prompt.hard}
    result = VideoPhy2Result(
        everything=summarise(list(scores.values())),
        hard=summarise([pair for stem, pair in scores.items() if stem in hard]),
        judge=JUDGE,
        protocol=protocol,
        outputs_sha256=(file_sha256(sa), file_sha256(pc)),
        scores=scores,
    )
    written = result.write(result_path(videos))
    return written if work is None else result.save(work, f"{result.kind}-{Path(videos).name}")


def result_path(videos: Path) -> Path:
    """Where :func:`score_run` writes a run's scores beside its videos."""
    return Path(videos) / f"{VideoPhy2Result.kind}.json"


def summarise(pairs: list[tuple[Score, Score]]) -> Subset:
    """Shares of (SA, PC) pairs."""
    sa, pc, joint = _shares(pairs)
    return Subset(
        pc=bootstrap(pc),
        sa=bootstrap(sa),
        joint=bootstrap(joint),
        unscored_pc=int(np.isnan(pc).sum()),
        unscored_sa=int(np.isnan(sa).sum()),
        prompts=len(pairs),
    )


def compare_runs(first: VideoPhy2Result, second: VideoPhy2Result, prompts: PromptSet) -> VideoPhy2Comparison:
    """The second run minus the first, prompt by prompt.

    Raises:
        ValueError: the runs differ in more than the model and its branch.
    """
    if other := second.protocol.difference(first.protocol, _CAPTION_FREE):
        raise ValueError(f"the runs differ in {other}: compare runs of one protocol")
    if first.protocol.prompts_sha256 != prompts.sha256:
        raise ValueError("the runs are of other prompts: give their prompt file")
    hard = np.array([bool(prompt.hard) for prompt in prompts.prompts])
    stems = [prompt.stem for prompt in prompts.prompts]
    before, after = (_shares([run.scores[stem] for stem in stems]) for run in (first, second))
    sa, pc, joint = (b - a for a, b in zip(before, after, strict=True))
    return VideoPhy2Comparison(
        everything=Differences(pc=bootstrap(pc), sa=bootstrap(sa), joint=bootstrap(joint)),
        hard=Differences(pc=bootstrap(pc[hard]), sa=bootstrap(sa[hard]), joint=bootstrap(joint[hard])),
        model_sha256=(first.protocol.model_sha256, second.protocol.model_sha256),
        branch=(first.protocol.branch, second.protocol.branch),
    )


def _shares(pairs: list[tuple[Score, Score]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each video whether SA, PC and both are good, float64 ``(n,)``; NaN where unscored."""

    def good(score: Score) -> float:
        return float("nan") if score is None else float(score >= GOOD)

    sa, pc = (np.array([good(pair[i]) for pair in pairs], np.float64) for i in range(2))
    return sa, pc, sa * pc


def _check_benchmark(prompts: PromptSet) -> None:
    if prompts.benchmark != "videophy2":
        raise ValueError(f"these are prompts of {prompts.benchmark}: this judge is VideoPhy2's")
