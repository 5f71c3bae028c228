"""Texts longer than a model reads, tables and file names as other systems write them, hidden files."""

import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prophy.annotation.cli import build_parser
from prophy.annotation.config import read_config
from prophy.catalogue.limits import ClipSize
from prophy.cli import main
from prophy.data.cache import TensorCache, verify
from prophy.data.encode import encode_caption, readable
from prophy.data.folder import read_folder
from prophy.data.jobs import Geometry, Job, Shard, jobs_of_worlds, read_jobs
from prophy.data.wisa import read_wisa
from prophy.evaluation.benchmarks.prompts import BenchmarkPrompt, PromptSet, read_videophy2
from prophy.evaluation.benchmarks.videophy2 import read_scores
from prophy.evaluation.benchmarks.videos import generate_videos
from prophy.files import visible
from prophy.generation.checks import check_all
from prophy.generation.settings import GenerationError, GenerationSettings
from prophy.training.bases import open_folder
from prophy.training.caching import fill
from prophy.video import write_video

SHORT, LONG = "a red ball bounces", " ".join(["a red ball bounces on the floor"] * 40)


def write_clip(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, np.zeros((17, 32, 32, 3), np.uint8), 8.0)


# --- long texts -------------------------------------------------------------------------------------------------------


def test_a_caption_longer_than_the_model_reads_is_never_cut(tiny_pipeline):
    with pytest.raises(ValueError, match=r"'a red ball .*' is \d+ tokens long and the model reads \d+: shorten it"):
        encode_caption(tiny_pipeline, LONG)
    read = readable(tiny_pipeline, {"one": (LONG, SHORT), "two": (SHORT,)})
    assert read == {"one": (SHORT,), "two": (SHORT,)}
    with pytest.raises(ValueError, match=r"every clip has captions longer than the \d+ tokens .* one \(\d+\)"):
        readable(tiny_pipeline, {"one": (LONG,)})


def test_the_cache_leaves_out_long_captions_and_names_them_before_it_encodes(tiny_pipeline, tmp_path, caplog):
    jobs = jobs_of_worlds(3, "train", ("melting", "collision"))
    captions = (SHORT, LONG, SHORT)
    told: list[str] = []

    def read(job: Job) -> np.ndarray:
        told.append(caplog.text)
        return job.read()

    jobs = [
        Job(job.id, text, job.phenomena, lambda job=job: read(job), job.masks)
        for job, text in zip(jobs, captions, strict=True)
    ]
    assert fill(tiny_pipeline, jobs, None, tmp_path, Geometry.of_worlds(), Shard(0, 1)) == (2, 0)
    assert all("left out 1 of 3 clips, with captions longer than the" in text for text in told)
    assert "train-000001 (" in told[0]
    assert [entry.id for entry in TensorCache(tmp_path).entries()] == ["train-000000", "train-000002"]
    assert verify(tmp_path) == []


def test_training_on_a_folder_leaves_out_long_captions_and_names_them(base, tmp_path, caplog):
    for name in ("a.mp4", "b.mp4"):
        write_clip(tmp_path / name)
    (tmp_path / "captions.csv").write_text(f"file,caption\na.mp4,{SHORT}\nb.mp4,{LONG}\n")
    examples = open_folder(tmp_path, str(base), ClipSize(32, 32, 9), 8.0)
    assert (len(examples), examples.example(0, 0).key) == (1, "a.mp4")
    assert "left out 1 of 2 clips, with captions longer than the" in caplog.text
    assert "b.mp4 (" in caplog.text


def test_a_prompt_for_samples_is_checked_before_the_training_starts(base, tmp_path, capsys):
    flags = ("--data", str(tmp_path / "cache"), "--worlds", "4", "--out", str(tmp_path / "run"), "--prompt", LONG)
    assert main(["train", "--recipe", "tiny", "--model", str(base), "--size", "64x64x17", *flags]) == 2
    assert "tokens long and the model reads" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "cache").exists()


def test_every_prompt_of_a_benchmark_is_read_before_the_first_clip_whatever_the_shard(tiny_pipeline, tmp_path):
    texts = (SHORT, LONG, SHORT, LONG + " and melts", "a " * 1001)
    prompts = tuple(BenchmarkPrompt(f"{i:04d}", text, text, None, "") for i, text in enumerate(texts))
    made = PromptSet("videophy2", "0" * 64, "caption", prompts, ())
    settings = GenerationSettings("any", steps=1, guidance=1.0, frames=5, height=16, width=32)
    for shard in (Shard(0, 2), Shard(1, 2)):
        said = r"3 of 5 prompts cannot be made, such as 0001: .* tokens long .*: shorten it; the others: 0003, 0004"
        with pytest.raises(GenerationError, match=said):
            generate_videos(tiny_pipeline, made, tmp_path, settings, shard)
    assert not list(tmp_path.glob("*.mp4"))
    assert generate_videos(tiny_pipeline, made, tmp_path, settings, Shard(0, 2), limit=1) == 1


def test_all_prompts_that_cannot_be_made_are_counted_and_named(tiny_pipeline):
    settings = GenerationSettings(SHORT, steps=1, guidance=1.0, frames=5, height=16, width=32)
    asked = [settings, replace(settings, prompt=LONG), replace(settings, prompt=f"two of {LONG}"), settings]
    with pytest.raises(GenerationError, match=r"shorten it; and 1 more of 4: 'two of a red ball"):
        check_all(tiny_pipeline, asked)


def test_what_a_reader_changed_in_a_table_is_said_before_the_work_on_it(tmp_path, caplog):
    write_clip(tmp_path / "a.mp4")
    rows = [{"file": "a.mp4", "caption": "melting " * 1000, "mood": "glad", "phenomena": "melting"}]
    rows += [{"file": f"{name}.mp4", "caption": "ice", "mood": "glad", "phenomena": "melting"} for name in "bc"]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = build_parser().parse_args(["--data", "folder", "--path", str(tmp_path), "--vlm", "x"])
    jobs, _, _ = read_jobs(arguments)
    assert len(jobs) == 1
    assert "caption cut after 4,096 characters: 1, such as a.mp4" in caplog.text
    assert "column 'mood' not read: 1" in caplog.text
    assert "left out 2 of 3 rows, such as captions.jsonl line 2 (b.mp4): its video is not there" in caplog.text


def test_labels_that_name_no_phenomenon_are_said_before_the_work(tmp_path, caplog):
    """A clip whose every label is written otherwise has none: it is left out."""
    for name in "ab":
        write_clip(tmp_path / f"{name}.mp4")
    (tmp_path / "captions.csv").write_text("file,caption,phenomena\na.mp4,ice,melting\nb.mp4,ice,melting;combustion\n")
    jobs, left_out, _ = read_jobs(
        build_parser().parse_args(["--data", "folder", "--path", str(tmp_path), "--vlm", "x"])
    )
    assert ([job.id for job in jobs], left_out) == (["a.mp4"], 1)
    assert "labels that name no phenomenon: 'melting;combustion' (1), such as in b.mp4" in caplog.text


def test_settings_with_a_byte_order_mark_are_read(tmp_path):
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + b'{"fps": 3.0}')
    assert read_config(tmp_path / "a.json").fps == 3.0
    (tmp_path / "a.json").write_bytes('{"fps": 3.0}'.encode("utf-16"))
    with pytest.raises(ValueError, match="is UTF-16, not UTF-8"):
        read_config(tmp_path / "a.json")


# --- tables -----------------------------------------------------------------------------------------------------------

PROMPTS = PromptSet(
    "videophy2",
    "0" * 64,
    "caption",
    tuple(BenchmarkPrompt(f"000{i}-x", text, text, False, "") for i, text in enumerate(("a ball", "smoke, grey"))),
    (),
)
JUDGED = 'caption,videopath,score\na ball,C:\\runs\\0000-x.mp4,4.0\n"smoke, grey",/runs/0001-x.mp4,2\n'


@pytest.mark.parametrize(
    "data",
    [
        JUDGED.encode(),
        JUDGED.encode("utf-8-sig"),
        JUDGED.replace("\n", "\r\n").encode("utf-8-sig"),
        JUDGED.replace("caption,videopath", " caption , videopath").encode(),
        JUDGED.replace("a ball", "a “ball”").encode("cp1252"),
        (JUDGED + "\n,,\n").encode(),
        ("sep=,\r\n" + JUDGED.replace("\n", ",,\r\n")).encode("utf-8-sig"),
        JUDGED.replace("4.0\n", "4.0,,\n").encode(),
        ("\n,,\n" + JUDGED).encode(),
        ("\ufeff" + JUDGED).encode("utf-8-sig"),  # two tables with marks made one
        JUDGED.replace("\n", "\r").encode(),
    ],
)
def test_a_judges_table_is_read_as_any_table(tmp_path, data: bytes):
    (tmp_path / "sa.csv").write_bytes(data)
    assert read_scores(tmp_path / "sa.csv", PROMPTS) == {"0000-x": 4, "0001-x": 2}


@pytest.mark.parametrize(
    ("text", "encoding", "said"),
    [
        (JUDGED.replace(",", ";"), "utf-8", "is not separated by commas"),
        (JUDGED, "utf-16", "is UTF-16, not UTF-8"),
        (JUDGED.replace('"', ""), "utf-8", "line 3: 4 cells under 3 columns: quote a cell"),
        (JUDGED.replace("videopath", "video"), "utf-8", "has no column videopath, only caption, video, score"),
        (JUDGED + '"open', "utf-8", "is a quote left open"),
        (JUDGED.replace("caption,", "score,"), "utf-8", "names a column twice: 'score'"),
        ("sep=;\n" + JUDGED.replace(",", ";"), "utf-8", "is not separated by commas"),
    ],
)
def test_a_judges_table_that_cannot_be_read_says_why(tmp_path, text: str, encoding: str, said: str):
    (tmp_path / "sa.csv").write_bytes(text.encode(encoding))
    with pytest.raises(ValueError, match=said):
        read_scores(tmp_path / "sa.csv", PROMPTS)


def test_a_key_that_stands_twice_in_a_line_is_a_fault(tmp_path):
    write_clip(tmp_path / "a.mp4")
    (tmp_path / "captions.jsonl").write_text(
        '{"file": "a.mp4", "caption": "ice melts", "caption": "smoke"}\n{"file": "b", "caption": "ice"}'
    )
    (twice, _) = read_folder(tmp_path).faults
    assert str(twice) == "captions.jsonl line 1: the row cannot be read: not JSON: it names 'caption' twice"


def test_the_benchmarks_own_table_is_read_with_a_mark_and_names_its_broken_rows(tmp_path):
    text = "caption,upsampled_caption,is_hard\na ball,a ball falls,1\nsmoke,,0\n"
    (tmp_path / "test.csv").write_bytes(text.encode("utf-8-sig"))
    assert [prompt.text for prompt in read_videophy2(tmp_path / "test.csv").prompts] == ["a ball falls", "smoke"]
    (tmp_path / "test.csv").write_text(text + "x,y\n")
    with pytest.raises(ValueError, match="line 4: 2 cells under 3 columns"):
        read_videophy2(tmp_path / "test.csv")


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("on_disk", "in_table"),
    [
        (unicodedata.normalize("NFD", "Glace fondüe.mp4"), unicodedata.normalize("NFC", "Glace fondüe.mp4")),
        (unicodedata.normalize("NFC", "Glace fondüe.mp4"), unicodedata.normalize("NFD", "Glace fondüe.mp4")),
        ("ice/melts.mp4", "ice\\melts.mp4"),
        ("Ice/Melts.mp4", "ice/melts.MP4"),
        ("ice/melts.mp4", "./ice/melts.mp4"),
        ("ice/melts.mp4", "ice. /melts.mp4. "),
        ("CON.mp4", "con.mp4"),
    ],
)
def test_a_name_is_found_as_other_systems_write_it(tmp_path, on_disk: str, in_table: str):
    write_clip(tmp_path / on_disk)
    rows = [{"file": in_table, "caption": "ice melts"}]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    reading = read_folder(tmp_path)
    assert not reading.faults
    assert [record.video for record in reading.records] == [tmp_path / on_disk]
    assert not reading.unnamed_videos


def test_of_two_names_that_other_systems_take_for_one_the_exact_one_is_taken_or_none(tmp_path):
    for name in ("a.mp4", "A.mp4"):
        write_clip(tmp_path / name)
    (tmp_path / "captions.csv").write_text("file,caption\nA.mp4,one\na.mp4,two\na.MP4,three\n")
    reading = read_folder(tmp_path)
    assert [(record.id, record.caption) for record in reading.records] == [("A.mp4", "one"), ("a.mp4", "two")]
    assert [fault.reason for fault in reading.faults] == ["its video's name is not unique"]


@pytest.mark.parametrize("name", ["C:\\clips\\a.mp4", "..\\a.mp4", "\\\\server\\a.mp4"])
def test_paths_of_windows_do_not_lead_out_of_the_folder(tmp_path, name: str):
    write_clip(tmp_path / "a.mp4")
    (tmp_path / "captions.csv").write_text(f"file,caption\n{name},x\n")
    assert [fault.reason for fault in read_folder(tmp_path).faults] == ["its video lies outside the folder"]


def test_wisas_videos_are_found_as_other_systems_write_them(tmp_path):
    name = unicodedata.normalize("NFC", "é1.mp4")
    write_clip(tmp_path / "videos" / "shard" / unicodedata.normalize("NFD", name))
    record = {"video_name": f"D:\\wisa\\{name}", "captions": "Ice melts.", "physical_annotation": {}}
    record["physical_annotation"] = {f"q{i}": "no" for i in range(5)}
    (tmp_path / "wisa.json").write_text(json.dumps([record]))
    reading = read_wisa(tmp_path / "wisa.json", videos=tmp_path / "videos")
    assert (len(reading.records), reading.faults) == (1, ())


def test_hidden_files_of_other_systems_are_left_alone(tiny_pipeline, tmp_path):
    write_clip(tmp_path / "a.mp4")
    (tmp_path / "captions.csv").write_text("file,caption\na.mp4,x\n")
    for name in ("._captions.csv", ".DS_Store", "._a.mp4", ".Trash/b.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5\26\7")
    reading = read_folder(tmp_path)
    assert not reading.faults
    assert (len(reading.records), reading.unnamed_videos) == (1, ())
    cache = tmp_path / "cache"
    fill(tiny_pipeline, jobs_of_worlds(1, "train", ("melting",)), None, cache, Geometry.of_worlds(), Shard(0, 1))
    for path in (*visible(cache), *visible(cache / "present")):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7")
    assert verify(cache) == []
    assert len(TensorCache(cache).entries()) == 1
    (tmp_path / "wisa").mkdir()
    (tmp_path / "wisa" / "._wisa-80k.json").write_bytes(b"\0\5\26\7")
    with pytest.raises(ValueError, match="holds no metadata"):
        read_wisa(tmp_path / "wisa")
