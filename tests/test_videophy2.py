"""The public benchmarks: real-format files made here, real videos of a small real pipeline, hostile judge output."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UniPCMultistepScheduler
from transformers import UMT5EncoderModel

from prophy.data.jobs import Shard
from prophy.evaluation import cli
from prophy.evaluation.benchmarks.prompts import PromptSet, read_phygenbench, read_phyground, read_videophy2
from prophy.evaluation.benchmarks.vbench import QUALITY, evaluate_vbench, read_vbench
from prophy.evaluation.benchmarks.videophy2 import (
    compare_runs,
    parse_score,
    read_scores,
    result_path,
    score_run,
    summarise,
    write_judge_inputs,
)
from prophy.evaluation.benchmarks.videos import missing_videos
from prophy.evaluation.measures.figures import read_prompts
from prophy.evaluation.report.readers.benchmarks import vbench
from prophy.evaluation.results.protocol import Protocol
from prophy.evaluation.results.vbench import VBenchResult
from prophy.evaluation.results.videophy2 import VideoPhy2Result
from prophy.runs.computation import Computation
from prophy.tiny.text import build_tokenizer

COLUMNS = ("caption", "video_url", "sa", "pc", "joint", "action", "category", "is_hard", "upsampled_caption")


def write_official_csv(path: Path, captions: int = 4, videos: int = 3) -> Path:
    """As the official file: one row a video, quoted commas, a stray Windows-1252 byte."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for video in range(videos):
            for i in range(captions):
                caption = f"a red ball bounces {i} times, slowly" + " " * video
                longer = f"a red ball bounces on the floor, scene {i}"
                writer.writerow([caption, f"https://x/{i}_{video}.mp4", 4, 3, 0, "bounce", "sport", i == 1, longer])
        writer.writerow(["the potter?s ball", "https://x/p.mp4", 5, 5, 1, "", "craft", "False", ""])
    path.write_bytes(path.read_bytes().replace(b"potter?s", b"potter\x92s"))
    return path


@pytest.fixture
def prompts(tmp_path) -> PromptSet:
    return read_videophy2(write_official_csv(tmp_path / "videophy2_test.csv"))


def stand_in_videos(folder: Path, prompts: PromptSet, **changes) -> Path:
    """A folder as `generate` leaves it; the judge's side never opens the videos here."""
    folder.mkdir(parents=True)
    fields = {
        "benchmark": "videophy2",
        "prompts_sha256": prompts.sha256,
        "text_field": prompts.text_field,
        "prompts": len(prompts.prompts),
        "model_sha256": "a" * 64,
        "branch": True,
        "seed": 0,
        "steps": 20,
        "guidance": 4.0,
        "frames": 17,
        "height": 64,
        "width": 64,
        "fps": 8.0,
    }
    (folder / "protocol.json").write_text(json.dumps(fields | changes))
    for prompt in prompts.prompts:
        (folder / f"{prompt.stem}.mp4").write_bytes(b"video")
    return folder


def write_judged(path: Path, prompts: PromptSet, scores: list[str]) -> Path:
    """As pandas writes the judge's frame: an unnamed index, then the input's columns, then the score."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["", "caption", "videopath", "score"])
        for i, (prompt, score) in enumerate(zip(prompts.prompts, scores, strict=False)):
            writer.writerow([i, prompt.caption, f"/data/run/{prompt.stem}.mp4", score])
    return path


# --- prompts ----------------------------------------------------------------------------------------------------------


def test_rows_of_one_caption_are_one_prompt_and_everything_odd_is_told(prompts):
    assert len(prompts.prompts) == 5
    assert [prompt.hard for prompt in prompts.prompts] == [False, True, False, False, False]
    assert prompts.prompts[0].text == "a red ball bounces on the floor, scene 0"
    assert prompts.prompts[0].caption == "a red ball bounces 0 times, slowly"
    assert prompts.prompts[4].text == "the potter’s ball", "without an upsampled caption the caption is used"
    told = " ".join(prompts.notes)
    for part in ("13 rows (videos), 5 captions", "1 bytes are not UTF-8", "1 captions have no upsampled", "1 are HARD"):
        assert part in told


def test_the_short_caption_is_another_protocol(tmp_path, prompts):
    short = read_videophy2(tmp_path / "videophy2_test.csv", "caption")
    assert short.prompts[0].text == short.prompts[0].caption
    assert short.sha256 != prompts.sha256
    with pytest.raises(ValueError, match="unknown caption field"):
        read_videophy2(tmp_path / "videophy2_test.csv", "title")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("is_hard", "hard", "no column is_hard"),
        ("True", "perhaps", "neither true nor false"),
        ("the potter", " ", "row 14"),
    ],
)
def test_a_csv_that_cannot_be_used_is_refused(tmp_path, before: str, after: str, message: str):
    path = write_official_csv(tmp_path / "a.csv")
    text = path.read_bytes().decode("cp1252").replace(before, after).replace(" ’s ball", "")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_videophy2(path)


def test_rows_that_disagree_on_hardness_are_refused(tmp_path):
    path = write_official_csv(tmp_path / "a.csv")
    path.write_bytes(path.read_bytes().replace(b"True", b"False", 1))
    with pytest.raises(ValueError, match="disagree on is_hard"):
        read_videophy2(path)


def test_phygenbench_and_phyground_are_read_with_their_own_video_names(tmp_path):
    entry = {
        "caption": "A stone is gently placed on the surface of a pool filled with water. ",
        "physical_laws": "Due to buoyancy and density of objects, the stone will sink",
        "sub_category": "Buoyancy",
        "main_category": "Force",
    }
    (tmp_path / "prompts.json").write_text(json.dumps([entry, {**entry, "caption": "A cup"}]))
    first = read_phygenbench(tmp_path / "prompts.json")
    assert [prompt.stem for prompt in first.prompts] == ["output_video_1", "output_video_2"]
    assert first.prompts[0].category == "Force: Buoyancy"
    assert not first.prompts[0].text.endswith(" ")
    entry = {"id": 156, "prompt": "Two marbles collide.", "physical_laws": ["momentum"], "id_stem": "collision_156"}
    (tmp_path / "phyground.json").write_text(json.dumps([entry]))
    second = read_phyground(tmp_path / "phyground.json")
    assert second.prompts[0].stem == "collision_156"
    assert second.prompts[0].category == "momentum"
    (tmp_path / "phyground.json").write_text(json.dumps([entry, entry]))
    with pytest.raises(ValueError, match="two prompts have the video name collision_156"):
        read_phyground(tmp_path / "phyground.json")
    (tmp_path / "phyground.json").write_text(json.dumps([{**entry, "id_stem": "../escape"}]))
    with pytest.raises(ValueError, match="no file name"):
        read_phyground(tmp_path / "phyground.json")


@pytest.mark.parametrize("text", ["{", "{}", "[1]", "[]", '[{"caption": "x"}]'])
def test_a_damaged_json_of_prompts_is_refused(tmp_path, text: str):
    (tmp_path / "prompts.json").write_text(text)
    with pytest.raises(ValueError, match=r"prompts\.json"):
        read_phygenbench(tmp_path / "prompts.json")


def test_a_prompt_set_survives_its_file_and_a_damaged_one_is_refused(prompts, tmp_path):
    path = prompts.save(tmp_path / "prompts.json")
    assert PromptSet.load(path) == prompts
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(ValueError, match="not a prompt set"):
        PromptSet.load(path)
    with pytest.raises(FileNotFoundError, match="prompts"):
        PromptSet.load(tmp_path / "nowhere.json")


# --- the judge --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("4", 4),
        ("4.0", 4),
        ("Score: 5", 5),
        (" 1\n", 1),
        ("0", None),
        ("0.0", None),
        ("6", None),
        ("-3", None),
        ("3.5", None),
        ("3,5", None),
        ("100000", None),
        ("4 out of 5", None),
        ("4e1", None),
        ("", None),
        (None, None),
        ("nan", None),
        ("the video is good", None),
    ],
)
def test_a_score_is_one_legal_integer_or_unscored(text, score):
    assert parse_score(text) == score


def test_unscored_videos_are_counted_and_never_become_zeros(prompts, tmp_path):
    videos = stand_in_videos(tmp_path / "run", prompts)
    sa = write_judged(tmp_path / "sa.csv", prompts, ["5.0", "4.0", "1.0", "nonsense", "4.0"])
    pc = write_judged(tmp_path / "pc.csv", prompts, ["4.0", "2.0", "5.0", "5.0"])  # it left the last one out
    result = score_run(prompts, videos, sa, pc)
    everything = result.everything
    assert everything.sa.value == pytest.approx(3 / 4)
    assert everything.pc.value == pytest.approx(3 / 4)
    assert everything.joint.value == pytest.approx(1 / 3)
    assert (everything.joint.n, everything.unscored_sa, everything.unscored_pc, everything.prompts) == (3, 1, 1, 5)
    assert (result.hard.prompts, result.hard.sa.value, result.hard.joint.value) == (1, 1, 0)
    assert VideoPhy2Result.read(result_path(videos)).scores == result.scores


def test_a_judge_that_scores_nothing_leaves_no_number():
    empty = summarise([(None, None)] * 3)
    assert np.isnan(empty.joint.value)
    assert (empty.unscored_pc, empty.joint.n) == (3, 0)


def test_judge_output_that_does_not_fit_is_refused(prompts, tmp_path):
    twice = write_judged(tmp_path / "twice.csv", prompts, ["4"] * 5)
    twice.write_text(twice.read_text() + twice.read_text().splitlines()[1] + "\n")
    with pytest.raises(ValueError, match="twice"):
        read_scores(twice, prompts)
    other = write_judged(tmp_path / "other.csv", prompts, ["4"] * 5)
    other.write_text(other.read_text().replace(prompts.prompts[2].stem, "0002-somebodyelses"))
    with pytest.raises(ValueError, match="no video of these prompts"):
        read_scores(other, prompts)
    (tmp_path / "input.csv").write_text("caption,videopath\na,b.mp4\n")
    with pytest.raises(ValueError, match="no column score"):
        read_scores(tmp_path / "input.csv", prompts)
    with pytest.raises(FileNotFoundError, match="run the judge"):
        read_scores(tmp_path / "nowhere.csv", prompts)


def test_the_judge_gets_the_short_caption_and_every_video_or_nothing(prompts, tmp_path):
    videos = stand_in_videos(tmp_path / "run", prompts)
    sa, pc = write_judge_inputs(prompts, videos, tmp_path / "judge")
    assert sa.read_text() == pc.read_text()
    rows = list(csv.DictReader(sa.read_text().splitlines()))
    assert [row["caption"] for row in rows] == [prompt.caption for prompt in prompts.prompts]
    assert Path(rows[0]["videopath"]).is_absolute()
    (videos / f"{prompts.prompts[3].stem}.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match="1 of 5 videos are missing"):
        write_judge_inputs(prompts, videos, tmp_path / "judge")


def test_a_judges_output_of_another_folder_is_named(prompts, tmp_path, caplog):
    """Two runs of one set of prompts have videos of the same names."""
    judged = write_judged(tmp_path / "sa.csv", prompts, ["4"] * 5)
    score_run(prompts, stand_in_videos(tmp_path / "run", prompts), judged, judged)
    assert not caplog.records
    score_run(prompts, stand_in_videos(tmp_path / "other", prompts), judged, judged)
    assert f"{judged} scores videos in run, not in {tmp_path / 'other'}: is it of another run?" in caplog.text


def test_runs_are_compared_prompt_by_prompt_and_only_within_one_protocol(prompts, tmp_path):
    runs = []
    for name, branch, scores in (("off", False, ["3", "3", "4", "4", "x"]), ("on", True, ["4", "3", "4", "4", "5"])):
        videos = stand_in_videos(tmp_path / name, prompts, branch=branch)
        sa = write_judged(tmp_path / f"{name}-sa.csv", prompts, ["5"] * 5)
        runs.append(score_run(prompts, videos, sa, write_judged(tmp_path / f"{name}-pc.csv", prompts, scores)))
    result = compare_runs(*runs, prompts)
    assert result.everything.pc.value == pytest.approx(1 / 4)
    assert result.everything.pc.n == 4, "a video that one run has no score for is no pair"
    assert result.branch == (False, True)
    other = stand_in_videos(tmp_path / "other", prompts, steps=50)
    judged = tmp_path / "on-sa.csv"
    with pytest.raises(ValueError, match="differ in steps"):
        compare_runs(runs[0], score_run(prompts, other, judged, judged), prompts)
    solvers = [
        replace(run.protocol, computation=Computation(scheduler=name)) for run, name in zip(runs, "AB", strict=True)
    ]
    made = [replace(run, protocol=protocol) for run, protocol in zip(runs, solvers, strict=True)]
    with pytest.raises(
        ValueError, match=r"differ in computation \(with B instead of A\): compare runs of one protocol"
    ):
        compare_runs(*made, prompts)
    mixed = stand_in_videos(tmp_path / "mixed", prompts, prompts_sha256="b" * 64)
    with pytest.raises(ValueError, match="other prompts"):
        score_run(prompts, mixed, judged, judged)


def test_a_tampered_result_is_refused(prompts, tmp_path):
    videos = stand_in_videos(tmp_path / "run", prompts)
    judged = write_judged(tmp_path / "sa.csv", prompts, ["4"] * 5)
    score_run(prompts, videos, judged, judged)
    path = videos / "videophy2.json"
    document = json.loads(path.read_text())
    document["scores"][prompts.prompts[0].stem] = [7, 4]
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="not 1 to 5"):
        VideoPhy2Result.read(result_path(videos))


# --- generation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3"])
def test_a_bad_shard_is_refused(text: str):
    with pytest.raises(ValueError, match="--shard"):
        Shard.of(text, {})
    assert Shard.of("2/8", {}) == Shard(1, 8)


def test_shards_share_a_folder_resume_and_refuse_another_protocol(tiny_pipeline, tmp_path, capsys):
    source = write_official_csv(tmp_path / "videophy2_test.csv", captions=3, videos=1)
    prompts_path = tmp_path / "prompts.json"
    cli.main(["videophy2", "prompts", str(source), "--out", str(prompts_path), "--caption", "caption"])
    assert "n=4" in capsys.readouterr().out
    prompts = PromptSet.load(prompts_path)
    torch.manual_seed(8)
    tokenizer = build_tokenizer([prompt.text for prompt in prompts.prompts])
    config = tiny_pipeline.text_encoder.config
    config.vocab_size = len(tokenizer)
    tiny_pipeline.register_modules(tokenizer=tokenizer, text_encoder=UMT5EncoderModel(config).eval())
    model, out = tmp_path / "model", tmp_path / "videos"
    tiny_pipeline.save_pretrained(model)
    command = ["videophy2", "generate", str(prompts_path), "--out", str(out), "--model", str(model)]
    command += ["--steps", "1", "--frames", "5", "--height", "32", "--width", "32"]
    cli.main([*command, "--shard", "2/2"])
    assert missing_videos(prompts, out) == [prompts.prompts[0].stem, prompts.prompts[2].stem]
    kept = (out / f"{prompts.prompts[1].stem}.mp4").stat().st_mtime_ns
    with pytest.raises(ValueError, match="are missing"):
        cli.main(["videophy2", "judge", str(prompts_path), str(out)])
    cli.main(command)
    assert not missing_videos(prompts, out)
    assert (out / f"{prompts.prompts[1].stem}.mp4").stat().st_mtime_ns == kept
    assert Protocol.load(out).branch
    with pytest.raises(ValueError, match="another protocol"):
        cli.main([*command, "--seed", "5"])
    with pytest.raises(ValueError, match="another protocol"):
        cli.main([*command, "--no-branch"])
    with pytest.raises(
        ValueError, match="another protocol .it differs in flow_shift, computation .with the scheduler's"
    ):
        cli.main([*command, "--flow-shift", "8"])
    UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=9.0).save_pretrained(
        model / "scheduler"
    )
    with pytest.raises(ValueError, match=r"computation \(with the scheduler's flow_shift 9.0 instead of 2.0\)"):
        cli.main(command)
    cli.main(["videophy2", "judge", str(prompts_path), str(out)])
    judged = write_judged(tmp_path / "judged.csv", prompts, ["4", "5", "1", "2"])
    capsys.readouterr()
    cli.main(["videophy2", "score", str(prompts_path), str(out), "--sa", str(judged), "--pc", str(judged)])
    printed = capsys.readouterr().out
    assert "50.0 %" in printed
    assert "branch on" in printed
    cli.main(["videophy2", "compare", str(prompts_path), str(out), str(out)])
    assert "+0.0 points" in capsys.readouterr().out


# --- VBench -----------------------------------------------------------------------------------------------------------


def vbench_document(**changes) -> dict:
    """As VBench writes it: the dimension's value, then one entry a video."""
    values = {name: (low + high) / 2 for name, (low, high, _) in QUALITY.items()} | changes
    return {
        name: [value, [{"video_path": f"videos/{i}.mp4", "video_results": value} for i in range(2)]]
        for name, value in values.items()
    }


def test_vbench_quality_is_the_weighted_mean_of_normalised_dimensions(tmp_path):
    path = tmp_path / "a_eval_results.json"
    path.write_text(json.dumps(vbench_document()))
    assert read_vbench([path]).quality == pytest.approx(0.5)
    path.write_text(json.dumps({**vbench_document(dynamic_degree=1.0, scene=0.3), "release": 1.5, "prompts": None}))
    result = read_vbench([path])
    assert result.quality == pytest.approx((6 * 0.5 + 0.5 * 1.0) / 6.5)
    assert result.videos == 2
    assert "scene" not in result.raw


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("dynamic_degree"), "did not measure dynamic_degree"),
        (lambda d: d["imaging_quality"].__setitem__(0, float("nan")), "not a share"),
        (lambda d: d["imaging_quality"].__setitem__(0, 71.3), "not a share"),
        (lambda d: d["imaging_quality"].__setitem__(1, []), "no video"),
        (lambda d: d.update(imaging_quality=None), "not a result of VBench"),
    ],
)
def test_a_vbench_result_that_cannot_be_scored_is_refused(tmp_path, change, message: str):
    document = vbench_document()
    change(document)
    (tmp_path / "a.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message):
        read_vbench([tmp_path / "a.json"])


def test_vbench_dimensions_of_its_standard_suite_have_their_own_numbers_of_videos(tmp_path):
    document = vbench_document()
    document["imaging_quality"][1].pop()
    (tmp_path / "a_eval_results.json").write_text(json.dumps(document))
    evaluate_vbench([tmp_path / "a_eval_results.json"], tmp_path)
    kept = VBenchResult.read(tmp_path / "evaluation" / "vbench.json")
    assert (kept.videos, kept.counts["imaging_quality"], kept.counts["dynamic_degree"]) == (2, 1, 2)
    body = vbench(kept)
    assert body.notes == ("1 to 2 videos a dimension",)
    assert body.tables[0].header[-1] == "videos"
    about = json.loads((tmp_path / "evaluation" / "vbench.json").read_text())
    del about["counts"]
    (tmp_path / "evaluation" / "vbench.json").write_text(json.dumps(about))
    assert VBenchResult.read(tmp_path / "evaluation" / "vbench.json").counts == {}, "results of before are read"


@pytest.mark.parametrize("read", [lambda path: read_vbench([path]), read_phygenbench, read_phyground, read_prompts])
@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{", '[{"caption": 3, "prompt": 3, "physical_laws": [], "id": 1, "id_stem": "a"}]']
)
def test_what_is_no_file_of_a_benchmark_is_one_line(tmp_path, read, text: str):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=r"a\.json") as caught:
        read(tmp_path / "a.json")
    assert "\n" not in str(caught.value)


def test_two_videos_whose_names_differ_by_case_alone_are_refused(tmp_path):
    """One would be written over the other where a disk does not tell them apart."""
    entries = [{"id": i, "prompt": f"a ball {i}", "physical_laws": [], "id_stem": stem} for i, stem in enumerate("aA")]
    (tmp_path / "a.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match="two prompts have the video name a"):
        read_phyground(tmp_path / "a.json")


def test_vbench_dimensions_may_come_in_several_files_but_each_once(tmp_path, capsys):
    document = vbench_document()
    last = {"dynamic_degree": document.pop("dynamic_degree")}
    (tmp_path / "a.json").write_text(json.dumps(document))
    (tmp_path / "b.json").write_text(json.dumps(last))
    paths = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    cli.main(["vbench", *paths, "--work", str(tmp_path)])
    assert "quality" in capsys.readouterr().out
    assert json.loads((tmp_path / "evaluation" / "vbench.json").read_text())["quality"] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="stands in two"):
        read_vbench([Path(paths[0]), Path(paths[1]), Path(paths[1])])
