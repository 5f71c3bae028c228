"""Every command that README.md, CONTRIBUTING.md and docs/ print is accepted, and run or marked with what it needs.

``docs/EXPERIMENTS.md`` is a log: its commands are those of their day.
"""

from __future__ import annotations

import argparse
import ast
import re
import runpy
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest
from vlms import make_model, make_tokenizer

import prophy
from prophy.cli import main
from prophy.generation.generate import generate
from prophy.generation.settings import GenerationSettings
from prophy.runs.store import list_runs
from prophy.ui import cli as app
from prophy.video import write_video
from prophy.worlds import sample_clip

ROOT = Path(__file__).resolve().parents[1]
LOG = "EXPERIMENTS.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"] + [
    page for page in sorted((ROOT / "docs").glob("*.md")) if page.name != LOG
]
STARTS = ("prophy", ".venv/bin/prophy", "torchrun", "python", "bash", "pip", "python3", "accelerate")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)
STAND_INS = {"N": "3", "GIB": "8", "SIZE": "64x64x17"}  # of flags that take a number or a size


class Command(NamedTuple):
    """A command line, where it stands, and whether in a block of its own or within a sentence."""

    page: str
    text: str
    block: bool


def without_environment(line: str) -> str:
    """A line without the prompt and the variables before its command, as in ``CUDA_VISIBLE_DEVICES=1 prophy …``."""
    return re.sub(r"^(\$ )?([A-Z_]+=\S* )*", "", line)


def commands() -> list[Command]:
    """All of them, each once."""
    found: dict[str, Command] = {}
    for page in PAGES:
        text = page.read_text()
        for language, block in FENCED.findall(text):
            if language not in ("", "bash"):
                continue
            for line in block.replace("\\\n", " ").splitlines():
                command = without_environment(re.sub(r"\s#\s.*", "", line).strip())
                if command.split(" ")[0] in STARTS:
                    found.setdefault(command, Command(page.name, command, True))
        for inline in re.findall(r"`([^`\n]+)`", FENCED.sub("", text)):
            inline = without_environment(inline)
            if inline.split(" ")[0] in STARTS and " " in inline:
                found.setdefault(inline, Command(page.name, inline, False))
    return list(found.values())


def commands_of_docstrings() -> list[Command]:
    """Those that the modules print at their head, and in ``--help``; not the lists of names with bars between."""
    found = []
    for module in sorted((ROOT / "prophy").rglob("*.py")):
        for line in (ast.get_docstring(ast.parse(module.read_text())) or "").splitlines():
            command = re.sub(r"\s#\s.*", "", line).strip()
            if command.split(" ")[0] in ("prophy", "torchrun") and "|" not in command:
                found.append(Command(module.name, command, "--" in command))  # without flags it may be a name only
    return found


COMMANDS = commands()

#: part of a command -> what it needs that no machine of the tests has, or what else runs it
NEEDS = {
    "pip install": "a network",
    ".ci/run": "it is what runs these tests",
    "python -m sphinx": ".ci/run runs it before these tests",
    "pytest": "it is what runs these tests",
    "accelerate launch": "named as what does not work",
    "torchrun": "several accelerators; on two processes of a CPU: test_distributed.py, test_annotation_pipeline.py",
    "Wan-AI/": "published weights",
    "--recipe wan_1_3b": "published weights",
    "runs/wan": "published weights",
    "--branch DIR": "published weights",
    "--no-branch": "published weights; on small models: test_cli.py",
    "--lora ": "published weights; on small models: test_lora.py",
    "Qwen/": "published weights",
    "--data wisa": "WISA-80K; its forms: test_data.py",
    "prophy app": "it serves until it is stopped: test_browser.py",
    "--size 832x480x81": "minutes: test_cache.py, test_plan.py",
    "runs/wide": "hours; each stage at a small size: test_trainer.py, test_shipped.py",
    "runs/tiny": "hours; each stage at a small size: test_fit.py, test_shipped.py, test_evaluation.py",
    "runs/ablation": "hours: test_ablation_runs.py",
    "prophy evaluate": "minutes: test_evaluation.py, test_report.py",
    "prophy tiny": "hours: test_fit.py",
    "python benchmarks/": "minutes each, on a machine that does nothing else",
    "tests/fuzz.py": "minutes; one minute of it: .ci/run",
    "tests/kill_training.py": "minutes; two kills of it: test_trainer.py",
    "--worlds 2000": "an hour: the same with fewer clips below",
    "--clips 2000": "an hour: the same with fewer clips below",
    "--branch-conditional": "none: test_cli.py runs it",
    "generate --again RUN": "none: the same with a run below",
    "annotate show CLIP": "none: the same with a clip below",
    "prophy publish run --out": "none: the same with a run below",
    "--model NAME": "none: the same with a model below",
    "prophy plan --size": "none: the same with a model below",
    "--recipe NAME": "none: the same with a recipe below",
    "--clips N": "none: test_annotation_pipeline.py runs it",
}

#: the same of Python
PYTHON_NEEDS = {
    "Client(": "a served app: test_api.py",
    "wan2.1-": "published weights",
    "Wan-AI/": "published weights",
}

#: how the commands begin that tests below run, as printed but for names and numbers
RUN = (
    'prophy generate "a red ball bounces on the floor" --seed 3',
    'prophy generate "a red ball bounces on the floor" --steer',
    "prophy generate --again runs/",
    "prophy export runs/",
    "prophy train --list",
    "prophy train --recipe tiny --data",
    "prophy publish runs/first",
    'prophy generate "a red ball bounces" --branch my-branch',
    "prophy annotate show annotations",
    "prophy cache fill --model MODEL --annotations",
    "prophy cache verify",
    "prophy plan --model wan2.1-1.3b --vram",
    "prophy plan --model wan2.1-1.3b --size",
    "prophy plan --model wan2.1-14b --size",
    "prophy worlds preview --out",
    "prophy worlds preview --phenomenon",
    "prophy worlds preview --unlawful",
    "prophy worlds preview --twins",
)


def printed(start: str) -> Command:
    """The first command that begins so, wherever the program lies; one in a block before one within a sentence."""
    found = [one for one in COMMANDS if one.text.removeprefix(".venv/bin/").startswith(start)]
    return next((one for one in found if one.block), found[0])


def words_of(command: str) -> list[str]:
    """After the program's name, with what stands for a number replaced by one."""
    return [STAND_INS.get(word, word) for word in shlex.split(command)]


class Accepted(Exception):
    """The parser took the whole line."""


def parse(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a command to its own parser, and go no further.

    Raises:
        AssertionError: the parser refuses it.
    """
    own = argparse.ArgumentParser.parse_args

    def parse_args(self, *arguments, **more):
        own(self, *arguments, **more)
        raise Accepted

    def error(self, message: str):
        if not command.block and (
            "required" in message or "expected one argument" in message
        ):  # within a sentence a command may be shortened
            raise Accepted
        raise AssertionError(f"{command.page}: {command.text}: {message}")

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
    monkeypatch.setattr(argparse.ArgumentParser, "error", error)
    program, *words = words_of(command.text)
    if program == "torchrun":
        words = words[words.index("prophy") + 1 :] if "prophy" in words else ["train", "--list"]
    try:
        if program in ("prophy", ".venv/bin/prophy", "torchrun"):
            code = main(words)
            raise AssertionError(f"{command.page}: {command.text}: ended with {code}")
        if words[0] == "app.py":
            app.main(words[1:])
        elif words[0].endswith(".py"):
            script = ROOT / words[0]
            assert script.is_file(), command
            if "argparse" in script.read_text():
                monkeypatch.setattr("sys.argv", words)
                runpy.run_path(str(script), run_name="__main__")
    except Accepted:
        return


def python_blocks() -> list[str]:
    return [block for page in PAGES for language, block in FENCED.findall(page.read_text()) if language == "python"]


def test_the_pages_print_commands():
    languages = {language for page in PAGES for language, _ in FENCED.findall(page.read_text())}
    assert languages == {"", "bash", "python", "json", "bibtex"}, "a block of another language is read by no test"
    assert len(COMMANDS) > 40
    assert {command.page for command in COMMANDS} >= {"README.md", "annotation.md", "models.md", "training.md"}


@pytest.mark.parametrize("command", COMMANDS + commands_of_docstrings(), ids=lambda command: command.text[:70])
def test_a_documented_command_is_accepted_as_it_is_printed(command: Command, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(ROOT)
    parse(command, monkeypatch)


def test_every_documented_command_is_run_or_marked_with_what_it_needs():
    texts = {command.text for command in COMMANDS}
    ran = {printed(start).text for start in RUN}
    whole = [command for command in COMMANDS if command.block or "--" in command.text]
    bare = [one for one in whole if one.text not in ran and not any(part in one.text for part in NEEDS)]
    assert not bare, f"run it in a test, or say what it needs: {bare}"
    unused = [part for part in NEEDS if not any(part in text for text in texts)]
    assert not unused, f"no page prints {unused}"


def run(start: str, **changes: str) -> None:
    """A printed command of :data:`RUN` with some of its words replaced, each by what it begins with."""
    assert start in RUN
    _, *words = words_of(printed(start).text)
    for old, new in changes.items():
        (place,) = [place for place, word in enumerate(words) if word.startswith(old)]
        words[place] = new
    assert main(words) == 0


@pytest.mark.shipped
@pytest.mark.timeout(400)
def test_the_commands_of_the_readme_generate_steer_repeat_and_export(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run('prophy generate "a red ball bounces on the floor" --seed 3')
    run('prophy generate "a red ball bounces on the floor" --steer')
    steered, first = sorted(list_runs(Path("runs")), key=lambda one: one.record.steering.is_neutral)
    assert not steered.record.steering.is_neutral
    run("prophy generate --again runs/", **{"runs/": f"runs/{first.id}"})
    again = {one.id: one for one in list_runs(Path("runs"))}.keys() - {steered.id, first.id}
    assert len(again) == 1
    run("prophy export runs/", **{"runs/": f"runs/{first.id}"})
    assert Path("ball.mp4").stat().st_size > 1000
    run("prophy plan --model wan2.1-1.3b --vram")
    run("prophy plan --model wan2.1-1.3b --size")
    run("prophy plan --model wan2.1-14b --size")
    run("prophy train --list")
    assert "wan_1_3b" in capsys.readouterr().out


def test_the_commands_of_the_page_of_worlds_write_their_sheets(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for what, name in (("out", "worlds"), ("phenomenon", "collision"), ("unlawful", "unlawful"), ("twins", "twins")):
        run(f"prophy worlds preview --{what}")
        assert Path(f"{name}.png").stat().st_size > 1000


@pytest.mark.shipped
@pytest.mark.timeout(400)
def test_the_commands_of_the_readme_train_publish_and_generate(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = printed("prophy train --recipe tiny --data").text
    words = words_of(recipe)
    many = words[words.index("--worlds") + 1]
    steps = [] if any(word.startswith("steps=") for word in words) else ["--set", "steps=1"]
    few = [{many: "16"}.get(word, "steps=1" if word.startswith("steps=") else word) for word in words[1:]]
    assert main([*few, *steps]) == 0
    run("prophy publish runs/first")
    run('prophy generate "a red ball bounces" --branch my-branch')
    (made,) = list_runs(Path("runs"))
    assert made.routing_path is not None


@pytest.mark.shipped
@pytest.mark.timeout(400)
def test_the_commands_of_the_annotation_page_annotate_show_fill_and_verify(tmp_path: Path, monkeypatch, capsys):
    """With a small random model in place of the published one."""
    monkeypatch.chdir(tmp_path)
    make_model("qwen2_5_vl").save_pretrained("vlm")
    make_tokenizer().save_pretrained("vlm")
    Path("vlm/annotation.json").write_text(
        '{"fps": 4.0, "min_frame_tokens": 16, "max_frame_tokens": 64, "max_answer_tokens": 3}'
    )
    Path("clips").mkdir()
    write_video(Path("clips/a.mp4"), sample_clip(0, "train", ("melting",)).frames, 8.0)
    Path("clips/captions.csv").write_text("file,caption,phenomena\na.mp4,ice melts,melting\n")
    (command,) = (one.text for one in COMMANDS if one.text.startswith("torchrun") and "annotate" in one.text)
    words = words_of(command)
    words = [{"DIR": "clips", "Qwen/Qwen3-VL-8B-Instruct": "vlm"}.get(word, word) for word in words]
    geometry = ["--size", "64x64x17", "--fps", "8", "--cell", "8"]
    assert main([*words[words.index("prophy") + 1 :], *geometry]) == 0
    (clip,) = Path("annotations/clips").iterdir()
    run("prophy annotate show annotations", annotations=str(clip))
    model = str(ROOT / "assets" / "prophy-tiny")
    _, *fill = words_of(printed("prophy cache fill --model MODEL --annotations").text)
    assert main([{"MODEL": model, "DIR": "clips"}.get(word, word) for word in fill] + geometry) == 0
    run("prophy cache verify")
    assert "1 clips, nothing wrong" in capsys.readouterr().out


@pytest.mark.shipped
@pytest.mark.timeout(400)
def test_the_python_of_the_pages_runs(tmp_path: Path, monkeypatch):
    """Each block by itself, with fewer clips; what the sentence before it has is in its namespace."""
    monkeypatch.chdir(tmp_path)
    pipeline = prophy.load()
    made = generate(pipeline, GenerationSettings("a red ball bounces", steps=2), attention=True)
    run = made.save(tmp_path / "runs")
    assert len(run.attention().words) > 2
    ran = 0
    for block in python_blocks():
        if any(part in block for part in PYTHON_NEEDS):
            continue
        for long, short in (("range(100)", "range(2)"), ('"test", 50', '"test", 1'), ("runs/…", f"runs/{run.id}")):
            block = block.replace(long, short)
        exec(compile(block, "a page", "exec"), {"prophy": prophy, "pipeline": pipeline, "model": None, "branch": None})
        ran += 1
    assert ran == 5
    unused = [part for part in PYTHON_NEEDS if not any(part in block for block in python_blocks())]
    assert not unused, f"no page prints {unused}"
