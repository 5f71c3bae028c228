"""The commands of the public benchmarks.

prophy evaluate videophy2 prompts | generate | judge | score | compare
prophy evaluate phygenbench prompts | generate
prophy evaluate phyground prompts | generate
prophy evaluate vbench
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from prophy.data.jobs import Shard, add_shard
from prophy.evaluation.flags import add_work
from prophy.flags import add_model, add_sampling, branch_of, only_set, sampling_of, seeds, weights_of, whole


def add_benchmarks(commands: argparse._SubParsersAction) -> None:
    """Add every benchmark's commands to ``prophy evaluate``."""
    for name, what in (
        ("videophy2", "VideoPhy2: prompts, videos, the judge's input, its scores, two runs compared"),
        ("phygenbench", "PhyGenBench: prompts and videos"),
        ("phyground", "PhyGround: prompts and videos"),
    ):
        benchmark = commands.add_parser(name, help=what)
        parts = benchmark.add_subparsers(dest="part", required=True, metavar="part")
        _add_prompts(parts, name)
        _add_generate(parts)
        if name == "videophy2":
            _add_scoring(parts)

    vbench = commands.add_parser("vbench", help="VBench's quality score from its result files")
    vbench.add_argument("results", nargs="+", type=Path, metavar="JSON", help="VBench's *_eval_results.json")
    add_work(vbench)
    vbench.set_defaults(run=_vbench)


def _add_prompts(parts: argparse._SubParsersAction, benchmark: str) -> None:
    prompts = parts.add_parser("prompts", help="read the benchmark's own file")
    prompts.add_argument("source", type=Path, metavar="FILE", help="the benchmark's CSV or JSON")
    prompts.add_argument("--out", type=Path, required=True, metavar="JSON", help="the prompts in one form")
    if benchmark == "videophy2":
        prompts.add_argument(
            "--caption",
            default="upsampled_caption",
            help="what the video model gets: caption or upsampled_caption (default: upsampled_caption)",
        )
    prompts.set_defaults(run=_prompts, benchmark=benchmark, caption=None)


def _add_generate(parts: argparse._SubParsersAction) -> None:
    generate = parts.add_parser("generate", help="make the videos that are not there yet; one process a shard")
    generate.add_argument("prompts", type=Path, metavar="JSON", help="what `prompts` wrote")
    generate.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the videos, for all shards")
    add_model(generate, branch=True)
    generate.add_argument("--profile", default="auto", help="memory profile, see prophy plan (default: auto)")
    add_shard(generate)
    generate.add_argument("--limit", type=whole, metavar="N", help="only the first N prompts, for trying out")
    generate.add_argument("--seed", type=seeds, default=0, help="of the first prompt; the n-th has n more (default: 0)")
    add_sampling(generate, default="the embedded model's")
    for name in ("frames", "height", "width"):
        generate.add_argument(f"--{name}", type=int, help="as for prophy generate (default: the embedded model's)")
    generate.add_argument("--fps", type=float, help="frames per second of the files")
    generate.set_defaults(run=_generate)


def _add_scoring(parts: argparse._SubParsersAction) -> None:
    judge = parts.add_parser("judge", help="write the official judge's two input CSVs")
    judge.add_argument("prompts", type=Path, metavar="JSON", help="what `prompts` wrote")
    judge.add_argument("videos", type=Path, metavar="DIR", help="what `generate` made")
    judge.add_argument("--out", type=Path, metavar="DIR", help="folder of sa.csv and pc.csv (default: the videos')")
    judge.set_defaults(run=_judge)

    score = parts.add_parser("score", help="read the judge's two outputs: PC, SA, Joint, HARD")
    score.add_argument("prompts", type=Path, metavar="JSON", help="what `prompts` wrote")
    score.add_argument("videos", type=Path, metavar="DIR", help="what `generate` made")
    score.add_argument("--sa", type=Path, required=True, metavar="CSV", help="the judge's output for --task sa")
    score.add_argument("--pc", type=Path, required=True, metavar="CSV", help="the judge's output for --task pc")
    _add_report_folder(score)
    score.set_defaults(run=_score)

    compare = parts.add_parser("compare", help="two scored runs of one protocol, prompt by prompt")
    compare.add_argument("prompts", type=Path, metavar="JSON", help="what `prompts` wrote")
    compare.add_argument("first", type=Path, metavar="DIR", help="videos that `score` has scored")
    compare.add_argument("second", type=Path, metavar="DIR", help="another such folder")
    _add_report_folder(compare)
    compare.set_defaults(run=_compare)


def _add_report_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--work", type=Path, help="also write the result where prophy evaluate report finds it")


def _prompts(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.benchmarks.prompts import READERS

    field = {} if arguments.caption is None else {"text_field": arguments.caption}
    prompts = READERS[arguments.benchmark](arguments.source, **field)
    path = prompts.save(arguments.out)
    for note in prompts.notes:
        print(note)
    print(f"prompts  {path} (n={len(prompts.prompts)}, text: {prompts.text_field}, file {prompts.source_sha256[:12]})")


def _generate(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.benchmarks.prompts import PromptSet
    from prophy.evaluation.benchmarks.videos import generate_videos, missing_videos
    from prophy.generation.pipelines import load
    from prophy.generation.settings import GenerationSettings

    shard = Shard.of(arguments.shard, os.environ)
    prompts = PromptSet.load(arguments.prompts)
    chosen = only_set(arguments, "frames", "height", "width", "fps") | sampling_of(arguments)
    settings = GenerationSettings(prompts.prompts[0].text, arguments.seed).changed(**chosen)
    pipeline = load(
        arguments.model,
        branch=branch_of(arguments),
        profile=arguments.profile,
        **weights_of(arguments),
    )
    made = generate_videos(pipeline, prompts, arguments.out, settings, shard, arguments.limit)
    left = len(missing_videos(prompts, arguments.out))
    print(f"videos   {arguments.out} ({made} made, {left} of {len(prompts.prompts)} missing)")


def _judge(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.benchmarks.prompts import PromptSet
    from prophy.evaluation.benchmarks.videophy2 import write_judge_inputs

    paths = write_judge_inputs(PromptSet.load(arguments.prompts), arguments.videos, arguments.out or arguments.videos)
    for task, path in zip(("sa", "pc"), paths, strict=True):
        print(
            f"in the judge's checkout: python inference.py --input_csv {path} --output_csv {task}_out.csv --task {task}"
        )


def _score(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.benchmarks.prompts import PromptSet
    from prophy.evaluation.benchmarks.videophy2 import score_run
    from prophy.evaluation.report.readers import as_text

    prompts = PromptSet.load(arguments.prompts)
    print(as_text(score_run(prompts, arguments.videos, arguments.sa, arguments.pc, arguments.work)))


def _compare(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.benchmarks.prompts import PromptSet
    from prophy.evaluation.benchmarks.videophy2 import compare_runs, result_path
    from prophy.evaluation.report.format import text
    from prophy.evaluation.report.table import points
    from prophy.evaluation.results.videophy2 import VideoPhy2Result

    prompts = PromptSet.load(arguments.prompts)
    first, second = (VideoPhy2Result.read(result_path(videos)) for videos in (arguments.first, arguments.second))
    result = compare_runs(first, second, prompts)
    name = f"videophy2-{arguments.second.name}-minus-{arguments.first.name}"
    result.write(arguments.second / f"{name}.json")
    if arguments.work is not None:
        result.save(arguments.work, name)
    for prompts_of, part in (("ALL", result.everything), ("HARD", result.hard)):
        for measure, difference in vars(part).items():
            print(f"{prompts_of:6}{measure:8}{text(points(difference))}")


def _vbench(arguments: argparse.Namespace) -> None:
    from prophy.evaluation.benchmarks.vbench import evaluate_vbench
    from prophy.evaluation.report.readers import as_text

    print(as_text(evaluate_vbench(arguments.results, arguments.work)))
