"""The command line: quick help, frozen flags, errors in one line, and a clip from a prompt."""

import os
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch
from diffusers import WanPipeline
from safetensors.torch import save_file
from test_lora import pairs_for, write_wan

import prophy as prophy_package
from prophy.cli import build_parser, main
from prophy.files import check_writable
from prophy.generation.identity import model_hash
from prophy.generation.pipelines import load
from prophy.phenomena import by_id
from prophy.routing.schedule import Schedule
from prophy.routing.steering import Steering
from prophy.runs.export import OverlaySettings, export_still
from prophy.runs.store import Run, list_runs, read_run

FLAGS = {
    ("generate",): {
        *("--seed", "--out", "--model", "--branch", "--no-branch", "--steps", "--guidance"),
        *("--frames", "--height", "--width", "--fps", "--again", "--steer", "--force", "--profile"),
        *("--strength", "--branch-interval", "--branch-conditional", "--lora", "--variant", "--device"),
        *("--guidance-2", "--negative-prompt", "--flow-shift", "--sampler", "--few-steps", "--record-attention"),
    },
    ("export",): {
        *("--what", "--out", "--overwrite", "--mode", "--expert", "--phenomenon"),
        *("--index", "--step", "--opacity", "--frame", "--beside", "--word", "--looks"),
    },
    ("worlds", "preview"): {"--out", "--seed", "--phenomenon", "--size", "--fps", "--unlawful", "--twins"},
    ("plan",): {"--model", "--size", "--vram", "--dtype", "--branch", "--no-branch", "--json"},
}

EXPORT = ("export", "explosion", "--what", "still", "--out", "a.png")


UNPARSABLE = [
    ["fly"],
    ["generate"],
    ["generate", "a", "--branch", "x", "--no-branch"],
    ["generate", "a", "--again", "runs/x"],
    ["export", "explosion"],
    [*EXPORT, "--looks", "0:1"],
    [*EXPORT, "--word", "a", "--mode", "top1"],
]


def subparser(*names: str):
    parser = build_parser()
    for name in names:
        (action,) = [action for action in parser._actions if action.dest in ("command", "action")]
        parser = action.choices[name]
    return parser


def prophy(*arguments: str) -> subprocess.CompletedProcess:
    """Run the command as a person would."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "prophy", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=110)


def test_help_names_every_command_and_answers_at_once():
    started = time.perf_counter()
    result = prophy("--help")
    assert result.returncode == 0
    for command in [
        "app",
        "generate",
        "export",
        "worlds",
        "data",
        "plan",
        "train",
        "publish",
        "evaluate",
        "annotate",
        "cache",
    ]:
        assert command in result.stdout
    assert time.perf_counter() - started < 2  # a fifth of a second on a quiet machine; torch alone takes more than this


def test_without_a_command_it_prints_its_help_and_with_version_its_release(capsys):
    assert main([]) == 0
    assert "usage: prophy" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"prophy {prophy_package.__version__}\n"


@pytest.mark.parametrize(
    "command",
    [
        ("generate", "a red ball bounces", "--out"),
        ("train", "--recipe", "tiny", "--data", "absent", "--out"),
        ("annotate", "--data", "worlds", "--clips", "1", "--vlm", "absent", "--out"),
        ("cache", "fill", "--data", "worlds", "--clips", "1", "--model", "absent", "--out"),
        ("evaluate", "recognition", "--model", "absent", "--work"),
        ("evaluate", "videophy2", "generate", "absent.json", "--out"),
        ("app", "--model", "absent", "--runs"),
    ],
)
def test_a_folder_that_cannot_be_written_to_is_noticed_before_anything_is_opened(command: tuple, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    assert main([*command, str(tmp_path / "file" / "runs")]) == 2
    said = capsys.readouterr().err
    assert "cannot be written to (Not a directory): give another folder" in said
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_looking_whether_a_folder_can_be_written_to_leaves_nothing(tmp_path: Path):
    check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "kept").mkdir()
    check_writable(tmp_path / "kept" / "c")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--port", "0"), "--port 0 is no port: use 1 to 65535"),
        (("--port", "-1"), "--port -1 is no port: use 1 to 65535"),
        (("--port", "65536"), "--port 65536 is no port: use 1 to 65535"),
        (("--root-path", "tools"), "--root-path tools must begin with / or http, as in /tools/prophy"),
        (("--root-path", "//evil"), "must begin with / or http"),
        (("--root-path", "ftp://x/y"), "must begin with / or http"),
    ],
)
def test_where_the_app_listens_is_checked_in_one_line(flags: tuple, said: str, capsys):
    assert main(["app", *flags]) == 2
    found = capsys.readouterr().err
    assert said in found
    assert found.count("\n") == 1


def test_help_imports_nothing_heavy():
    heavy = "[name for name in ('torch', 'numpy', 'gradio') if name in sys.modules]"
    code = f"import sys, prophy.cli; prophy.cli.build_parser(); print({heavy})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("names", list(FLAGS))
def test_flags_change_only_on_purpose(names: tuple):
    assert set(subparser(*names)._option_string_actions) - {"-h", "--help"} == FLAGS[names]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", ""], "prophy: the prompt is empty"),
        (["generate", "<b>ball</b>"], "prophy: the prompt looks like HTML"),
        (["generate", "a ball", "--steps", "0"], "prophy: steps=0 must be"),
        (["generate", "a ball", "--frames", "16"], "use 17"),
        (["generate", "a ball", "--steer", "3"], "such as refinement:3=0"),
        (["generate", "a ball", "--steer", "3=9"], "must be a number from -4 to 4"),
        (["generate", "a ball", "--steer", "3=0", "--steer", "refinement:3=2"], "steered twice"),
        (["generate", "a ball", "--strength", "5"], "strength of the branch must be a number from 0 to 4"),
        (["generate", "a ball", "--force", "expert=2"], "like expert=2,frames=0-4,box=0.1:0.2:0.5:0.6"),
        (["generate", "a ball", "--force", "expert=2,frames=0-4,box=0.5:0:0.1:1"], "empty or reversed"),
        (["generate", "a ball", "--profile", "fast"], "prophy: no memory profile 'fast': use one of all, all+tiling, "),
        (
            ["generate", "a", "--branch-interval", "late"],
            "prophy: 'late' is no interval of the noise: write it like 0.3:1",
        ),
        (["generate", "--again", "absent"], "prophy: no run at absent"),
        (["export", "explosion", "--what", "wipe", "--out", "a.mp4"], "prophy: a wipe shows two runs: give the other"),
        ([*EXPORT, "--beside", "mirror"], "prophy: --beside changes nothing in a still: leave it out"),
        ([*EXPORT, "--mode", "heat"], "prophy: mode 'heat' is not one of phenomena, top1"),
        ([*EXPORT, "--phenomenon", "magic"], "prophy: unknown phenomenon 'magic'"),
        ([*EXPORT, "--expert", "8"], "prophy: the run has no expert 8: use 0 to 7"),
        ([*EXPORT, "--expert", "2", "--index", "3"], "prophy: --expert says which"),
        ([*EXPORT, "--word", "ball"], "what the backbone attends to was not recorded for run explosion: make it again"),
        ([*EXPORT, "--looks", "0:1:2"], "what the backbone attends to was not recorded for run explosion: make it"),
        ([*EXPORT, "--step", "21"], "prophy: the run has no denoising step 21: use 1 to 20"),
        ([*EXPORT, "--frame", "0"], "prophy: --frame 0 lies outside the clip: use 1 to 17"),
        ([*EXPORT, "--frame", "18"], "prophy: --frame 18 lies outside the clip: use 1 to 17"),
        (["export", "explosion", "--what", "zip", "--out", "a.png"], "prophy: a.png must end in .zip"),
        (["export", "explosion", "--what", "zip", "--out", "a.zip", "--step", "2"], "--step changes nothing in a zip"),
        (["export", "explosion", "--what", "overlay", "--out", "a.mp4", "--frame", "2"], "--frame changes nothing"),
        (
            ["export", "explosion", "--what", "gif", "--out", "a.gif", "--frame", "2"],
            "--frame changes nothing in a gif",
        ),
        (["export", "nowhere", "--what", "zip", "--out", "a.zip"], "prophy: no run 'nowhere': give a run's folder, or"),
        (["export", ".", "--what", "zip", "--out", "a.zip"], "is not a run id"),
        (["train"], "prophy: give --recipe too"),
        (["tiny"], "prophy: choose a stage"),
        (["tiny", "everything"], "prophy: choose a stage"),
        (
            ["generate", "a red ball", "--device", "mtia:9", "--out", "."],
            "prophy: torch has no device 'mtia:9' here: use cpu",
        ),
        (
            ["annotate", "show", "."],
            "prophy: . is not the folder of an annotated clip: look into the clips/ of an --out",
        ),
        (
            ["generate", "a red ball", "--device", "tpu", "--out", "."],
            "prophy: torch has no device 'tpu' here: use cpu",
        ),
        (["worlds", "preview", "--phenomenon", "magic"], "prophy: unknown phenomenon 'magic'"),
        (["worlds", "preview", "--size", "100x64x17"], "prophy: a stage of 100×64 pixels: give a width and a height"),
        (["worlds", "preview", "--size", "64x64"], "prophy: --size 64x64 is not WxHxF: give three numbers"),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(arguments: list, message: str, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", UNPARSABLE)
def test_a_command_line_that_cannot_be_parsed_shows_usage_and_exits_2(arguments: list, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: prophy" in capsys.readouterr().err


def test_debug_shows_where_an_error_came_from(monkeypatch):
    monkeypatch.setenv("PROPHY_DEBUG", "1")
    with pytest.raises(ValueError, match="the prompt is empty"):
        main(["generate", ""])


def test_an_interrupt_is_exit_code_130(monkeypatch, capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("prophy.tiny.cli.main", interrupt)
    assert main(["tiny", "vae"]) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_worlds_preview_writes_a_contact_sheet(tmp_path: Path, capsys):
    sheet = tmp_path / "sheet.png"
    assert main(["worlds", "preview", "--out", str(sheet), "--phenomenon", "collision"]) == 0
    assert sheet.read_bytes().startswith(b"\x89PNG")
    assert str(sheet) in capsys.readouterr().out
    before = sheet.read_bytes()
    assert main(["worlds", "preview", "--out", str(sheet), "--phenomenon", "collision", "--unlawful"]) == 0
    assert sheet.read_bytes() != before
    assert main(["worlds", "preview", "--out", str(sheet), "--phenomenon", "collision", "--twins"]) == 0
    picture = cv2.imread(str(sheet))
    assert picture.shape[0] > 6 * 96, "a row lawful, one by unlawful clocks, and one for each of four laws"


# --- making a run, and making it again --------------------------------------------------------------------------------

SIZE = ["--steps", "2", "--frames", "9", "--height", "32", "--width", "48"]
SCHEDULE = ["--branch-conditional", "--branch-interval", "0.5:1"]
STEERING = ["--steer", "3=mute", "--steer", "semantic:5=-1", "--force", "expert=2,frames=0-1,box=0:0:0.5:1"]


@pytest.fixture
def model(tiny_pipeline, tmp_path: Path, monkeypatch) -> Path:
    """A small random model on disk, with its branch, where the embedded one is looked for."""
    parts = {name: part for name, part in tiny_pipeline.components.items() if name != "branch"}
    WanPipeline(**parts).save_pretrained(tmp_path / "model")
    tiny_pipeline.branch.save_pretrained(tmp_path / "model" / "branch")
    monkeypatch.setattr("prophy.generation.pipelines.default_model", lambda: tmp_path / "model")
    return tmp_path / "model"


def make_run(out: Path, *arguments: str) -> Run:
    """The run that ``prophy generate`` adds to an empty folder."""
    assert main(["generate", *arguments, "--out", str(out)]) == 0
    (run,) = list_runs(out)
    return run


def test_a_run_made_again_has_the_same_settings_routing_and_frames(model: Path, tmp_path: Path, capsys):
    first = make_run(tmp_path / "a", "a red ball", "--seed", "5", "--guidance", "3", *SIZE, *STEERING, *SCHEDULE)
    assert first.record.schedule == Schedule(unconditional=False, interval=(0.5, 1))
    described = "steered  semantic expert 5 inverted; expert 3 muted; expert 2 forced on 12 cells, latent frames 0–1"
    assert capsys.readouterr().out.splitlines()[-3:-1] == [
        described,
        "branch   in conditional passes, at noise 0.5 to 1",
    ]
    again = make_run(tmp_path / "b", "--again", str(first.path))
    assert described in capsys.readouterr().out
    for name in ("prompt", "seed", "settings", "steering", "schedule", "model_sha256"):
        assert getattr(again.record, name) == getattr(first.record, name), name
    assert (again.trace().mean_probs == first.trace().mean_probs).all()
    assert (again.clip().frames == first.clip().frames).all()

    free = make_run(tmp_path / "c", "a red ball", "--seed", "5", "--guidance", "3", *SIZE)
    assert free.record.steering == Steering()
    assert (free.clip().frames != first.clip().frames).any(), "the steering shows nothing"


def test_flags_replace_what_the_run_says(model: Path, tmp_path: Path):
    first = make_run(tmp_path / "a", "a red ball", "--seed", "5", *SIZE, *STEERING)
    other = make_run(tmp_path / "b", "--again", str(first.path), "--seed", "6", "--steer", "1=boost")
    assert other.record.seed == 6
    assert other.record.settings == first.record.settings
    assert other.record.steering == Steering(refinement={1: 2})
    half = make_run(tmp_path / "c", "--again", str(first.path), "--strength", "0.5")
    assert half.record.steering == replace(first.record.steering, strength=0.5)
    boosted = make_run(tmp_path / "d", "--again", str(half.path), "--steer", "1=boost")
    assert boosted.record.steering == Steering(refinement={1: 2}, strength=0.5)


def test_a_lora_is_applied_and_one_that_fits_nothing_is_refused_in_one_line(
    model: Path, tiny_pipeline, tmp_path: Path, capsys
):
    pairs = pairs_for(tiny_pipeline.transformer.blocks)
    lora = write_wan(tmp_path / "motion.safetensors", pairs, "comfy")
    plain = make_run(tmp_path / "a", "a red ball", *SIZE)
    strong = make_run(tmp_path / "b", "a red ball", *SIZE, "--lora", str(lora))
    weak = make_run(tmp_path / "c", "a red ball", *SIZE, "--lora", f"{lora}:0.5")
    made = [run.clip().frames for run in (plain, strong, weak)]
    assert (made[0] != made[1]).any()
    assert (made[1] != made[2]).any()
    foreign = {
        "blocks.0.attn1.to_q.lora_A.weight": torch.ones(2, 99),
        "blocks.0.attn1.to_q.lora_B.weight": torch.ones(99, 2),
    }
    save_file(foreign, tmp_path / "foreign.safetensors")
    capsys.readouterr()
    asked = ["generate", "a red ball", *SIZE, "--lora", str(tmp_path / "foreign.safetensors")]
    assert main([*asked, "--out", str(tmp_path / "d")]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("prophy: foreign.safetensors fits no layer of this model (WanTransformer3DModel): it is for")


def test_a_run_without_its_branch_is_made_again_without_it(model: Path, tmp_path: Path, capsys):
    first = make_run(tmp_path / "a", "a red ball", "--no-branch", *SIZE)
    again = make_run(tmp_path / "b", "--again", str(first.path))
    assert again.routing_path is None
    assert again.record.model_sha256 == first.record.model_sha256 == model_hash(load(model, branch=False))
    assert (again.clip().frames == first.clip().frames).all()
    assert main(["generate", "--again", str(first.path), "--steer", "3=0", "--out", str(tmp_path / "c")]) == 2
    assert "the branch is switched off, so its experts cannot be steered" in capsys.readouterr().err


def test_a_run_of_release_0_1_without_its_branch_is_made_again(model: Path, tiny_pipeline, tmp_path: Path):
    """Its digest counts the branch too, though that was switched off."""
    first = make_run(tmp_path / "a", "a red ball", "--no-branch", *SIZE)
    with_branch = model_hash(load(model))
    assert first.record.model_sha256 == model_hash(load(model, branch=False)) != with_branch
    record = first.path / "run.json"
    record.write_text(record.read_text().replace(first.record.model_sha256, with_branch))
    again = make_run(tmp_path / "b", "--again", str(first.path))
    assert (again.clip().frames == first.clip().frames).all()
    assert again.record.model_sha256 == first.record.model_sha256


def test_a_run_of_other_weights_is_refused_unless_a_model_is_named(model: Path, tiny_pipeline, tmp_path: Path, capsys):
    first = make_run(tmp_path / "a", "a red ball", *SIZE)
    with torch.no_grad():
        next(tiny_pipeline.branch.parameters()).add_(1)
    tiny_pipeline.branch.save_pretrained(model / "branch")
    capsys.readouterr()
    assert main(["generate", "--again", str(first.path), "--out", str(tmp_path / "b")]) == 2
    last = capsys.readouterr().err.splitlines()[-1]  # after diffusers' own loading bars
    assert last.startswith(f"prophy: run {first.id} was made by other weights (model): open them with --model")
    assert not (tmp_path / "b").exists()
    make_run(tmp_path / "b", "--again", str(first.path), "--model", str(model))
    assert "expect other frames" in capsys.readouterr().out


def test_attention_is_recorded_when_it_is_asked_for_and_the_frames_stay(model: Path, tmp_path: Path, capsys):
    plain = make_run(tmp_path / "a", "a red ball", *SIZE)
    capsys.readouterr()
    run = make_run(tmp_path / "b", "a red ball", *SIZE, "--record-attention")
    assert "attention of 3 words: shown in the app under Words" in capsys.readouterr().out
    assert (run.clip().frames == plain.clip().frames).all()
    assert run.attention().words == ("a", "red", "ball")
    assert plain.attention() is None
    refused = ["generate", "a red ball", *SIZE, "--record-attention", "--no-branch", "--out", str(tmp_path / "c")]
    assert main(refused) == 2
    assert "attention is recorded beside the routing, and no branch is on" in capsys.readouterr().err


def test_an_expert_the_model_does_not_have_is_one_line(model: Path, tmp_path: Path, capsys):
    assert main(["generate", "a red ball", *SIZE, "--steer", "5=0", "--out", str(tmp_path / "a")]) == 2
    assert "refinement expert 5 does not exist: this model has 5, 0 to 4" in capsys.readouterr().err
    frames = "expert=2,frames=0-3,box=0:0:1:1"
    assert main(["generate", "a red ball", *SIZE, "--force", frames, "--out", str(tmp_path / "a")]) == 2
    assert "latent frame 3 does not exist: this clip has 3, 0 to 2" in capsys.readouterr().err


def test_a_shipped_run_is_exported_by_its_id_and_its_parts_by_their_folder(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "explosion", "--what", "zip", "--out", "run.zip"]) == 0
    assert capsys.readouterr().out == "zip      run.zip\n"
    with zipfile.ZipFile("run.zip") as archive:
        archive.extractall()
    still = ["export", "explosion/", "--what", "still", "--phenomenon", "explosion", "--out", "a.png"]
    assert main([*still, "--step", "3", "--frame", "17", "--opacity", "1"]) == 0
    assert main(["export", "explosion", "--what", "gif", "--expert", "1", "--out", "a.gif"]) == 0
    assert Path("a.gif").read_bytes().startswith(b"GIF89a")
    assert main(["export", "explosion", "--what", "trace", "--out", "a.npz"]) == 0
    assert Path("a.npz").read_bytes() == Path("explosion/routing.npz").read_bytes()

    run = read_run(tmp_path / "explosion")
    settings = OverlaySettings("phenomenon", by_id("explosion").index, step=3, opacity=1)
    expected = export_still(run, tmp_path / "expected.png", settings, 16).read_bytes()
    assert Path("a.png").read_bytes() == expected
    assert main(still) == 2
    assert "a.png already exists" in capsys.readouterr().err
    assert Path("a.png").read_bytes() == expected
    assert main([*still, "--overwrite"]) == 0
    assert Path("a.png").read_bytes() != expected


def test_threads_of_a_command_sleep_while_they_wait_unless_the_environment_says_otherwise():
    code = """
import os, prophy.cli
prophy.cli.main(["export", "none", "--what", "zip", "--out", "x"])
print(os.environ["OMP_WAIT_POLICY"])
"""
    for said, kept in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        environment |= {} if said is None else {"OMP_WAIT_POLICY": said}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.stdout.split()[-1] == kept, done.stderr
