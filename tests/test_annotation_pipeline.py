"""Annotation at scale: shards, going on after a kill, faulty clips, a full disk, the contact sheet, the command."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from video_files import UPRIGHT, edges, scene, write
from vlms import make_model, make_tokenizer

from prophy.annotation.annotator import Annotator
from prophy.annotation.cli import main, own_device
from prophy.annotation.config import AnnotationConfig, read_config
from prophy.annotation.pipeline import annotate_all, read_skipped
from prophy.annotation.record import Annotation
from prophy.annotation.show import panels, sheet
from prophy.data.folder import read_folder
from prophy.data.jobs import WORLDS, Geometry, Job, Shard, jobs_of, jobs_of_worlds
from prophy.video import read_video, write_video

CONFIG = AnnotationConfig(fps=4.0, min_frame_tokens=16, max_frame_tokens=64, max_answer_tokens=3)
SCOPE = ("melting", "collision", "gas_motion")
GEOMETRY = Geometry(width=64, height=48, frames=5, fps=4.0, cell=16)


@pytest.fixture(scope="module")
def vlm_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "small-vlm"
    make_model("qwen2_5_vl").save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    fields = {"fps": 4.0, "min_frame_tokens": 16, "max_frame_tokens": 64, "max_answer_tokens": 3}
    (folder / "annotation.json").write_text(json.dumps(fields))
    return folder


@pytest.mark.parametrize(
    ("kind", "rank", "expected"),
    [("cuda", "1", "cuda:1"), ("xpu", "0", "xpu:0"), ("xpu", None, "auto"), ("cpu", "1", "cpu"), ("cpu", None, "cpu")],
)
def test_a_worker_takes_its_own_accelerator_of_whatever_kind(kind: str, rank: str | None, expected: str, monkeypatch):
    monkeypatch.setattr("prophy.generation.pipelines.accelerator", lambda: torch.device(kind))
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert own_device() == expected


@pytest.fixture(scope="module")
def annotator() -> Annotator:
    return Annotator(make_model("qwen2_5_vl"), make_tokenizer(), CONFIG, name="small-vlm")


@pytest.fixture
def clips(tmp_path) -> Path:
    """A folder of two good clips and every kind of bad one, with its table."""
    folder = tmp_path / "clips"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("good.mp4", "other.mp4", "cut.mp4"):
        write_video(folder / name, rng.integers(0, 255, (13, 48, 64, 3), dtype=np.uint8), 8.0)
    data = (folder / "cut.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video")
    write_video(folder / "short.mp4", rng.integers(0, 255, (2, 48, 64, 3), dtype=np.uint8), 8.0)
    (folder / "picture.jpg").write_bytes(b"\xff\xd8\xff")
    long = " ".join(["melting"] * 4000)
    rows = [
        {"file": "good.mp4", "caption": "ice melts", "phenomena": "melting, collision"},
        {"file": "other.mp4", "caption": long, "phenomena": "gas motion"},
        {"file": "nothing.mp4", "caption": "not there", "phenomena": "melting"},
        *(
            {"file": f"{name}", "caption": name, "phenomena": "melting"}
            for name in ("cut.mp4", "empty.mp4", "text.mp4", "short.mp4", "picture.jpg")
        ),
    ]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    return folder


def targets_of(out: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in (out / "clips").glob("*/targets.npz")}


def test_a_shard_divides_the_clips_and_torchrun_divides_a_shard():
    jobs = jobs_of_worlds(23, "test", SCOPE)
    assert [str(Shard.of(text, {})) for text in (None, "1/1", "3/16")] == ["1/1", "1/1", "3/16"]
    shards = [Shard.of(f"{i}/2", {"RANK": str(r), "WORLD_SIZE": "3"}) for i in (1, 2) for r in range(3)]
    taken = [job.id for shard in shards for job in shard.take(jobs)]
    assert sorted(taken) == [job.id for job in jobs]
    assert {shard.count for shard in shards} == {6}
    for text in ("0/4", "5/4", "3", "a/b", "-1/4"):
        with pytest.raises(ValueError, match="use 1/16 to 16/16"):
            Shard.of(text, {})


def test_bad_videos_are_skipped_with_their_reasons_and_nothing_else_is_lost(annotator, clips, tmp_path, caplog):
    reading = read_folder(clips)
    assert [fault.reason for fault in reading.faults] == ["its video is not there"]
    jobs, left_out = jobs_of(reading.records, GEOMETRY)
    assert (len(jobs), left_out) == (7, 0)
    out = tmp_path / "annotations"
    outcome = annotate_all(annotator, jobs, out, GEOMETRY, Shard(0, 1))
    assert (outcome.annotated, outcome.before, outcome.skipped) == (2, 0, 5)
    skipped = read_skipped(out)
    assert skipped.keys() == {"cut.mp4", "empty.mp4", "text.mp4", "short.mp4", "picture.jpg"}
    for name, reason in (
        ("short.mp4", "is too short"),
        ("text.mp4", "cannot be read"),
        ("empty.mp4", "is empty"),
    ):
        assert reason in skipped[name]
    assert "skipped short.mp4" in caplog.text
    done = targets_of(out)
    again = annotate_all(annotator, jobs, out, GEOMETRY, Shard(0, 1))
    assert (again.annotated, again.before, again.skipped) == (0, 2, 5)
    assert targets_of(out) == done, "a finished clip was done again"
    (good,) = (out / "clips").glob("good-*")
    annotation = Annotation.load(good)
    assert annotation.targets.grid == GEOMETRY.grid
    assert set(annotation.answers) == {"collision", "melting"}
    assert json.loads((good / "clip.json").read_text())["caption"] == "ice melts"


def test_the_preview_of_a_phones_clip_is_upright(annotator, tmp_path):
    clockwise = [0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30]
    write(tmp_path / "phone.mov", [np.rot90(scene(48, 64), 1)] * 16, matrix=clockwise)
    (tmp_path / "captions.csv").write_text("file,caption,phenomena\nphone.mov,ice melts,melting\n")
    jobs, _ = jobs_of(read_folder(tmp_path).records, GEOMETRY)
    outcome = annotate_all(annotator, jobs, tmp_path / "out", GEOMETRY, Shard(0, 1))
    assert outcome.annotated == 1
    (clip,) = (tmp_path / "out" / "clips").glob("*/clip.mp4")
    assert edges(read_video(clip).frames[0]) == UPRIGHT


def test_clips_without_a_phenomenon_are_counted_not_annotated(clips):
    (clips / "captions.jsonl").write_text(
        json.dumps({"file": "good.mp4", "caption": "a", "phenomena": ""})
        + "\n"
        + json.dumps({"file": "other.mp4", "caption": "b", "phenomena": "levitation"})
        + "\n"
    )
    reading = read_folder(clips)
    assert reading.label_report.not_understood, "a label outside the list went unreported"
    assert jobs_of(reading.records, GEOMETRY) == ([], 2)


def test_annotations_of_another_recipe_are_not_mixed_in(annotator, tmp_path):
    jobs = jobs_of_worlds(1, "test", SCOPE)
    annotate_all(annotator, jobs, tmp_path, WORLDS, Shard(0, 1))
    with pytest.raises(ValueError, match="another geometry: choose another --out"):
        annotate_all(annotator, jobs, tmp_path, replace(WORLDS, fps=4.0), Shard(0, 1))
    other = Annotator(annotator.vlm.model, annotator.vlm.tokenizer, replace(CONFIG, relative=False), name="small-vlm")
    with pytest.raises(ValueError, match="another config"):
        annotate_all(other, jobs, tmp_path, WORLDS, Shard(0, 1))


def test_when_no_clip_at_all_can_be_annotated_the_first_reasons_are_an_error(annotator, tmp_path):
    def unreadable():
        raise ValueError("the disk with the videos is not mounted")

    jobs = [Job(str(i), "c", ("melting",), unreadable) for i in range(30)]
    with pytest.raises(ValueError, match="none of the first 10 clips .* not mounted"):
        annotate_all(annotator, jobs, tmp_path, WORLDS, Shard(0, 1))
    assert len(read_skipped(tmp_path)) == 10


def test_a_line_that_a_killed_worker_left_unfinished_costs_no_other(annotator, tmp_path):
    (tmp_path / "skipped.jsonl").write_text('{"id": "a", "reason": "broken"}\n{"id": "b", "rea')
    assert read_skipped(tmp_path) == {"a": "broken"}

    def broken():
        raise ValueError("c is broken")

    annotate_all(annotator, [Job("c", "", ("melting",), broken)], tmp_path, WORLDS, Shard(0, 1))
    assert read_skipped(tmp_path) == {"a": "broken", "c": "c is broken"}


def test_folder_names_are_safe_and_unique_whatever_the_ids_hold():
    ids = ["a/b.mp4", "a/c.mp4", "../../etc/passwd", "ü\n<b>", "x" * 500, "", "\ud800"]
    names = [Job(clip_id, "", ("melting",), lambda: None).folder for clip_id in ids]
    assert len(set(names)) == len(ids)
    for name in names:
        assert name.isascii()
        assert len(name) < 64
        assert "/" not in name
        assert not name.startswith(".")


@pytest.mark.parametrize("sizes", [{"frames": 48}, {"width": 830}, {"fps": 0.0}, {"cell": 7}])
def test_a_geometry_that_does_not_divide_is_refused(sizes):
    with pytest.raises(ValueError, match="use|must be above"):
        Geometry(**sizes)


TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def command(*arguments: object) -> subprocess.Popen:
    inherited = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    line = [sys.executable, "-m", "prophy", "annotate", *map(str, arguments)]
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=inherited)


@pytest.mark.timeout(600)
def test_a_killed_worker_loses_at_most_one_clip_and_torchrun_goes_on(vlm_folder, tmp_path):
    out, wanted = tmp_path / "out", 24
    line = ("--data", "worlds", "--clips", wanted, "--vlm", vlm_folder, "--out", out)
    worker = command(*line)
    deadline = time.monotonic() + 300
    while len(targets_of(out)) < 3:
        assert worker.poll() is None, worker.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    killed = targets_of(out)
    assert 3 <= len(killed) < wanted, "the worker was not killed in the middle"
    begun = [path for path in (out / "clips").iterdir() if not (path / "targets.npz").exists()]
    assert len(begun) <= 1
    for name in killed:
        Annotation.load(out / "clips" / name)
    # what the limit on a file's size does to it is what a full disk does: the clip in hand fails, the others stay
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (400, 400));"
        "from prophy.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    full = subprocess.run(
        [sys.executable, "-c", code, "annotate", *map(str, line)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert full.returncode == 2
    assert f"no room left in {out}: make room and run the same command again, {len(killed)} finished" in full.stderr
    assert targets_of(out) == killed
    workers = subprocess.run(
        [*TORCHRUN, "-m", "prophy", "annotate", *map(str, line)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert workers.returncode == 0, workers.stderr
    finished = targets_of(out)
    assert len(finished) == wanted
    assert {name: finished[name] for name in killed} == killed, "a finished clip was done again"
    said = re.findall(r"shard (\d)/2 of 24 clips: (\d+) annotated, (\d+) before, 0 skipped", workers.stdout)
    assert {rank for rank, _, _ in said} == {"1", "2"}, workers.stdout
    assert sum(int(now) for _, now, _ in said) == wanted - len(killed)
    assert sum(int(before) for _, _, before in said) == len(killed)
    assert not list(out.rglob("*.new"))
    assert "clip/s" in workers.stderr or "s/clip" in workers.stderr, "no progress with time left"


def test_the_sheet_shows_each_phenomenon_with_its_maps_and_their_difference(annotator, tmp_path, capsys):
    jobs = jobs_of_worlds(1, "test", SCOPE)
    annotate_all(annotator, jobs, tmp_path, WORLDS, Shard(0, 1))
    (folder,) = (tmp_path / "clips").iterdir()
    annotation, frames = Annotation.load(folder), jobs[0].read()
    name = next(iter(annotation.answers))
    drawn = panels(annotation, frames, name, rows=3, width=64)
    assert drawn.frames.shape == drawn.answer.shape == drawn.background.shape == drawn.difference.shape
    assert drawn.frames.shape == (3, 64, 64, 3)
    assert not np.array_equal(drawn.answer, drawn.background)
    peak = annotation.targets.values[:, annotation.targets.labelled].argmax()
    assert peak >= 0
    few, many = (sheet(annotation, frames, "a caption", rows=rows, width=64) for rows in (2, 4))
    assert many.shape[0] > few.shape[0]
    with pytest.raises(ValueError, match="was not asked about 'explosion': use one of"):
        panels(annotation, frames, "explosion")
    with pytest.raises(ValueError, match="its annotation 17"):
        panels(annotation, frames[:5], name)
    main(["show", str(folder), "--out", str(tmp_path / "sheet.png")])
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    with pytest.raises(FileNotFoundError, match="look into the clips/"):
        main(["show", str(tmp_path / "nowhere")])


def test_the_hottest_cell_of_the_difference_is_drawn_where_the_target_is_largest(annotator, tmp_path):
    jobs = jobs_of_worlds(1, "test", SCOPE)
    annotate_all(annotator, jobs, tmp_path, WORLDS, Shard(0, 1))
    (folder,) = (tmp_path / "clips").iterdir()
    annotation = Annotation.load(folder)
    name = next(iter(annotation.answers))
    drawn = panels(annotation, np.full((17, 64, 64, 3), 128, np.uint8), name, rows=17, width=64)
    grid = annotation.targets.grid
    index = int(np.flatnonzero(annotation.targets.labelled)[0])
    if len(annotation.answers) == 1:
        t, h, w = grid.position(int(annotation.targets.values[:, index].argmax()))
        frame = grid.video_frames(t)[0]
        redness = drawn.difference[frame].astype(int)[..., 0] - drawn.difference[frame].astype(int)[..., 2]
        y, x = np.unravel_index(redness.argmax(), redness.shape)
        assert (y // 8, x // 8) == (h, w)


def test_a_model_carries_its_own_settings_and_wrong_ones_are_named(vlm_folder, tmp_path):
    assert read_config(vlm_folder) == CONFIG
    assert read_config("Qwen/Qwen2.5-VL-32B-Instruct") == AnnotationConfig()
    for text, error in (("[1]", "no object"), ("{", "is not JSON"), ('{"fsp": 2}', "holds fsp: use some of")):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(ValueError, match=error):
            read_config(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--data", "folder"], "needs --path"),
        (["--data", "worlds", "--path", "x"], "--path changes nothing in the worlds"),
        (["--data", "worlds", "--size", "100x64x17"], "give a width and a height that 8 divides"),
        (["--data", "worlds", "--fps", "12.5"], "--fps 12.5: the worlds take a whole number of frames a second"),
        (["--data", "worlds", "--phenomena", "gravity"], "no world shows gravity"),
        (["--data", "folder", "--path", "x", "--phenomena", "all"], "--phenomena changes nothing in --data folder"),
        (["--data", "worlds", "--shard", "9/4"], "use 1/16 to 16/16"),
        (["--data", "folder", "--path", ".", "--size", "64x64"], "give three numbers"),
        (["--data", "folder", "--path", ".", "--videos", "x"], "leave it out"),
    ],
)
def test_a_wrong_flag_is_refused_before_any_weight_is_read(arguments, error):
    with pytest.raises(ValueError, match=error):
        main([*arguments, "--vlm", "no/such-model"])
