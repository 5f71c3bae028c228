"""A benchmark's videos, made by several processes that share nothing but a folder, and resumed after any of them dies.

    prophy evaluate videophy2 generate runs/videophy2/prompts.json --out runs/videophy2/prophy --shard 1/4

Each prompt's seed follows from its place in the set alone, so the number of shards changes nothing. A folder holds one
protocol: another model, size or seed is refused, not mixed in.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from diffusers import DiffusionPipeline
from tqdm import tqdm

from prophy.evaluation.benchmarks.prompts import PromptSet
from prophy.evaluation.results import write_json
from prophy.generation.generate import GenerationSettings, generate, model_hash
from prophy.video import write_video

PROTOCOL = "protocol.json"


@dataclass(frozen=True)
class Protocol:
    """What every video of a folder has in common.

    Attributes:
        prompts_sha256: of the prompt set.
        text_field: which of the benchmark's captions the model got.
        prompts: how many.
        branch: whether the branch took part.
        seed: of the first prompt; the n-th has ``seed + n``.
    """

    benchmark: str
    prompts_sha256: str
    text_field: str
    prompts: int
    model_sha256: str
    branch: bool
    seed: int
    steps: int
    guidance: float
    frames: int
    height: int
    width: int
    fps: float

    @classmethod
    def load(cls, folder: Path) -> Protocol:
        """Of a folder of videos.

        Raises:
            FileNotFoundError: no videos were generated there.
            ValueError: the file is damaged.
        """
        path = Path(folder) / PROTOCOL
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: generate the videos into {folder} first")
        try:
            return cls(**json.loads(path.read_text()))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error}): generate into another folder") from error


def shard_of(text: str) -> tuple[int, int]:
    """``2/8`` is the second of eight: returns (1, 8).

    Raises:
        ValueError: anything else.
    """
    match = re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"--shard {text}: give i/n with 1 <= i <= n, such as 2/8")
    return int(match[1]) - 1, int(match[2])


def generate_videos(
    pipeline: DiffusionPipeline,
    prompts: PromptSet,
    out: Path,
    settings: GenerationSettings,
    shard: tuple[int, int] = (0, 1),
    limit: int | None = None,
) -> int:
    """Generate the videos of one shard that are not there yet. Returns how many were made.

    Args:
        pipeline: opened by :func:`prophy.generation.pipelines.load`, the branch on or off as it shall be.
        prompts: of the benchmark.
        out: folder of the videos, shared by all shards.
        settings: of every video; its prompt is not used, its seed is that of the first prompt.
        shard: (index, count).
        limit: only the first so many prompts of the set, for trying out.

    Raises:
        ValueError: the folder holds videos of another protocol.
        GenerationError: a prompt that the model cannot read.
    """
    attachment = getattr(pipeline, "attachment", None)
    protocol = Protocol(
        benchmark=prompts.benchmark,
        prompts_sha256=prompts.sha256,
        text_field=prompts.text_field,
        prompts=len(prompts.prompts),
        model_sha256=model_hash(pipeline),
        branch=attachment is not None and attachment.enabled,
        seed=settings.seed,
        **{name: getattr(settings, name) for name in ("steps", "guidance", "frames", "height", "width", "fps")},
    )
    out = Path(out)
    if (out / PROTOCOL).exists():
        if (found := Protocol.load(out)) != protocol:
            other = next(name for name, value in asdict(protocol).items() if getattr(found, name) != value)
            raise ValueError(f"{out} holds videos of another protocol ({other} differs): give another --out")
    else:
        write_json(out / PROTOCOL, protocol)
    index, count = shard
    chosen = list(enumerate(prompts.prompts))[:limit][index::count]
    wanted = [(number, prompt) for number, prompt in chosen if not (out / f"{prompt.stem}.mp4").is_file()]
    for number, prompt in tqdm(wanted, f"shard {index + 1}/{count}", unit="video"):
        made = generate(
            pipeline,
            GenerationSettings(
                prompt.text,
                settings.seed + number,
                **{name: getattr(settings, name) for name in ("steps", "guidance", "frames", "height", "width", "fps")},
            ),
        )
        temporary = out / f"{prompt.stem}.new.mp4"
        write_video(temporary, made.frames, settings.fps)
        temporary.replace(out / f"{prompt.stem}.mp4")
    return len(wanted)


def missing_videos(prompts: PromptSet, folder: Path) -> list[str]:
    """Stems of the prompts that have no video, or an empty one, in a folder."""
    paths = ((prompt.stem, Path(folder) / f"{prompt.stem}.mp4") for prompt in prompts.prompts)
    return [stem for stem, path in paths if not path.is_file() or path.stat().st_size == 0]
