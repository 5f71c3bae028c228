"""A benchmark's videos, made by several processes that share nothing but a folder, and resumed after any of them dies.

    prophy evaluate videophy2 generate runs/videophy2/prompts.json --out runs/videophy2/prophy --shard 1/4

Each prompt's seed follows from its place in the set alone, so the number of shards changes nothing. A folder holds one
protocol: another model, size or seed is refused, not mixed in.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from diffusers import DiffusionPipeline

from prophy.data.jobs import Shard
from prophy.evaluation.benchmarks.prompts import BenchmarkPrompt, PromptSet
from prophy.evaluation.results.protocol import PROTOCOL, Protocol
from prophy.files import some_of, write_text
from prophy.generation.checks import check
from prophy.generation.generate import Generation
from prophy.generation.identity import branch_is_on, computation_of, model_hash
from prophy.generation.resume import resumable
from prophy.generation.settings import GenerationError, GenerationSettings
from prophy.video import write_video


class VideoFolder:
    """A :class:`prophy.generation.resume.ClipStore` of videos of one protocol, named by the prompts' stems.

    Raises:
        ValueError: the folder holds videos of another protocol.
    """

    def __init__(self, out: Path, protocol: Protocol) -> None:
        self._out = Path(out)
        if not (self._out / PROTOCOL).exists():
            self._out.mkdir(parents=True, exist_ok=True)
            write_text(self._out / PROTOCOL, json.dumps(protocol.to_json(), indent=2) + "\n", shared=True)
        elif other := protocol.difference(Protocol.load(self._out)):
            raise ValueError(f"{out} holds videos of another protocol (it differs in {other}): give another --out")

    def read(self, name: str, settings: GenerationSettings) -> Path | None:
        path = self._out / f"{name}.mp4"
        return path if _is_there(path) else None

    def write(self, name: str, made: Generation) -> Path:
        write_video(self._out / f"{name}.mp4", made.frames, made.settings.fps)
        return self._out / f"{name}.mp4"


def generate_videos(
    pipeline: DiffusionPipeline,
    prompts: PromptSet,
    out: Path,
    settings: GenerationSettings,
    shard: Shard = Shard(0, 1),  # noqa: B008 (frozen)
    limit: int | None = None,
) -> int:
    """Generate the videos of one shard that are not there yet. Returns how many were made.

    Args:
        pipeline: opened by :func:`prophy.generation.pipelines.load`, the branch on or off as it shall be.
        prompts: of the benchmark.
        out: folder of the videos, shared by all shards.
        settings: of every video; its prompt is not used, its seed is that of the first prompt.
        shard: which of the prompts.
        limit: only the first so many prompts of the set, for trying out.

    Raises:
        ValueError: the folder holds videos of another protocol.
        GenerationError: a prompt that the model cannot read.
    """
    protocol = Protocol(
        benchmark=prompts.benchmark,
        prompts_sha256=prompts.sha256,
        text_field=prompts.text_field,
        prompts=len(prompts.prompts),
        model_sha256=model_hash(pipeline),
        branch=branch_is_on(pipeline),
        seed=settings.seed,
        computation=computation_of(pipeline, settings),
        **settings.scalars,
    )
    asked = _checked(pipeline, prompts.prompts[:limit], settings)  # of all shards, before the first clip of any
    wanted = dict(shard.take(list(asked.items())))
    before = set(missing_videos(prompts, out))
    resumable(pipeline, wanted, VideoFolder(out, protocol), title=f"shard {shard}")
    return len(before & wanted.keys())


def _checked(
    pipeline: DiffusionPipeline, prompts: Sequence[BenchmarkPrompt], settings: GenerationSettings
) -> dict[str, GenerationSettings]:
    """Settings of each prompt's clip, by its stem.

    Raises:
        GenerationError: some cannot be made; all of them are counted and named.
    """
    wanted: dict[str, GenerationSettings] = {}
    refused: dict[str, str] = {}
    for number, prompt in enumerate(prompts):
        try:
            wanted[prompt.stem] = replace(settings, prompt=prompt.text, seed=settings.seed + number)
            check(pipeline, wanted[prompt.stem])
        except GenerationError as error:
            refused[prompt.stem] = str(error)
    if refused:
        first, *others = refused
        more = f"; the others: {some_of(others)}" if others else ""
        raise GenerationError(
            f"{len(refused)} of {len(prompts)} prompts cannot be made, such as {first}: {refused[first]}{more}"
        )
    return wanted


def missing_videos(prompts: PromptSet, folder: Path) -> list[str]:
    """Stems of the prompts that have no video, or an empty one, in a folder."""
    paths = ((prompt.stem, Path(folder) / f"{prompt.stem}.mp4") for prompt in prompts.prompts)
    return [stem for stem, path in paths if not _is_there(path)]


def _is_there(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0
