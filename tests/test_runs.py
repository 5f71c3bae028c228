"""Run directories: whole or absent, read back as written, and refused in one line when anything was touched."""

import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from synthetic import GRID, make_frames, make_record, make_trace

from prophy import video
from prophy.grid import TokenGrid
from prophy.routing.schedule import Schedule
from prophy.routing.steering import MAX_CELLS, ForcedRegion, Steering
from prophy.runs import store as runs
from prophy.runs.record import RunError, RunRecord
from prophy.runs.store import Run, find_run, list_runs, read_run, write_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One valid run; tests copy it before they touch it."""
    sheet = np.zeros((20, 30, 3), np.uint8)
    root = tmp_path_factory.mktemp("runs")
    return write_run(root, make_record(), make_frames(), trace=make_trace(), sheet=sheet, run_id="whole")


@pytest.fixture
def copy(whole: Run, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole.path, tmp_path / "whole"))


def edit(path: Path, **changes) -> None:
    """Change fields of run.json; None removes one."""
    document = json.loads((path / "run.json").read_text())
    document.update(changes)
    (path / "run.json").write_text(json.dumps({k: v for k, v in document.items() if v is not None}))


def refusal(path: Path) -> str:
    """The message with which a run is refused, by :func:`read_run` or on the first use of its files."""
    with pytest.raises(RunError) as caught:
        read_run(path).trace()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return str(caught.value)


# --- what is written is read back -------------------------------------------------------------------------------------


def test_a_run_is_read_back_as_it_was_written(whole: Run):
    run = read_run(whole.path)
    assert run.record == make_record(created=run.record.created)
    assert set(run.files) == {"video.mp4", "poster.png", "routing.npz", "sheet.png"}
    clip, trace = run.clip(), run.trace()
    assert clip.fps == 8
    assert len(clip.frames) == GRID.num_video_frames
    saved = make_trace()
    for name in ("topk_ids", "topk_weights", "phenomenon_maps", "mean_probs", "semantic_weights"):
        np.testing.assert_array_equal(getattr(trace, name), getattr(saved, name))


def test_a_steering_is_read_back_equal_and_a_neutral_one_is_not_written(whole: Run, tmp_path: Path):
    assert "steering" not in json.loads((whole.path / "run.json").read_text())
    assert read_run(whole.path).record.steering == Steering()
    side = int(MAX_CELLS**0.5)
    largest = ForcedRegion(2, 0, 1, tuple((4095 - row, 4095 - column) for row in range(side) for column in range(side)))
    for steering in (Steering({5: -1}, {3: 0, 2: 0.1}), Steering(forced=(largest,))):
        run = write_run(tmp_path, make_record(steering=steering), make_frames())
        assert read_run(run.path).record.steering == steering
        assert isinstance(json.loads((run.path / "run.json").read_text())["steering"], dict)


def test_a_schedule_is_read_back_equal_and_every_pass_is_not_written(whole: Run, tmp_path: Path):
    assert "schedule" not in json.loads((whole.path / "run.json").read_text())
    assert read_run(whole.path).record.schedule == Schedule()
    for schedule in (Schedule(unconditional=False), Schedule(interval=(0.25, 1)), Schedule(False, (0, 0.5))):
        run = write_run(tmp_path, make_record(schedule=schedule), make_frames())
        assert read_run(run.path).record.schedule == schedule
        assert isinstance(json.loads((run.path / "run.json").read_text())["schedule"], dict)


@pytest.mark.parametrize(
    "schedule",
    [[], "late", {"unconditional": 1}, {"interval": 0.5}, {"interval": [1, 0]}, {"interval": [False, 1]}, {"steps": 3}],
)
def test_a_touched_schedule_is_refused(copy: Path, schedule: object):
    edit(copy, schedule=schedule)
    assert refusal(copy).startswith("run whole: schedule: ")


@pytest.mark.parametrize(
    "steering", [[], "mute", {"refinement": {"3": True}}, {"refinement": {"3": 9}}, {"other": {}}, {"forced": [{}]}]
)
def test_a_touched_steering_is_refused(copy: Path, steering: object):
    edit(copy, steering=steering)
    assert refusal(copy).startswith("run whole: steering: ")


def test_an_empty_steering_is_neutral(copy: Path):
    edit(copy, steering={})
    assert read_run(copy).record.steering.is_neutral


def test_a_run_without_a_branch_has_only_its_video(tmp_path: Path):
    run = write_run(tmp_path, make_record(), make_frames())
    assert set(run.files) == {"video.mp4", "poster.png"}
    assert run.trace() is run.routing_path is run.sheet_path is None


def test_run_json_names_no_path_of_this_machine(whole: Run):
    assert str(whole.path.parent) not in (whole.path / "run.json").read_text()


@pytest.mark.parametrize(
    "prompt", ["../../etc/passwd", "ÜBER—größe!", "火", "a" * 4000, "<script>alert(1)</script>", "a\nb"]
)
def test_any_prompt_makes_a_safe_id_and_comes_back_unchanged(tmp_path: Path, prompt: str):
    run = write_run(tmp_path, make_record(prompt), make_frames())
    assert runs._is_run_id(run.id)
    assert run.path.parent == tmp_path
    assert read_run(run.path).record.prompt == prompt


def test_the_same_record_twice_makes_two_runs(tmp_path: Path):
    record = make_record()
    assert write_run(tmp_path, record, make_frames()).id != write_run(tmp_path, record, make_frames()).id
    assert len(list_runs(tmp_path)) == 2


def test_newest_runs_come_first(tmp_path: Path):
    for day in (2, 3, 1):
        record = make_record(created=f"2026-01-0{day}T00:00:00Z")
        write_run(tmp_path, record, make_frames(), run_id=f"day-{day}")
    assert [run.id for run in list_runs(tmp_path)] == ["day-3", "day-2", "day-1"]


def test_a_missing_root_lists_nothing(tmp_path: Path):
    assert list_runs(tmp_path / "absent") == []


# --- whole or absent --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "stage"), [(video, "write_video"), (runs, "write_png"), (runs, "_stored_file"), (runs, "_sync")]
)
def test_a_write_that_fails_midway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module, stage: str):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(module, stage, fail)
    with pytest.raises(OSError, match="disk full"):
        write_run(tmp_path, make_record(), make_frames(), trace=make_trace())
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_is_never_listed(tmp_path: Path, whole: Run, caplog: pytest.LogCaptureFixture):
    shutil.copytree(whole.path, tmp_path / ".partial-whole-00000000")  # killed before the rename
    (tmp_path / "empty").mkdir()
    with caplog.at_level(logging.WARNING):
        assert list_runs(tmp_path) == []
    assert caplog.records == []


def test_a_taken_id_is_refused_and_the_run_there_is_kept(tmp_path: Path):
    write_run(tmp_path, make_record(), make_frames(), run_id="taken")
    with pytest.raises(RunError, match="already exists"):
        write_run(tmp_path, make_record(seed=4), make_frames(), run_id="taken")
    assert read_run(tmp_path / "taken").record.seed == 3


def test_frames_or_routing_of_another_generation_are_refused_before_writing(tmp_path: Path):
    wrong = [
        ({"frames": make_frames()[:-1]}, "but the settings say"),
        ({"trace": make_trace(prompt="another")}, "another prompt"),
        ({"trace": make_trace(seed=4)}, "another seed"),
        ({"trace": make_trace(grid=TokenGrid(2, 4, 5))}, "covers 5 frames, the clip has 9"),
    ]
    for change, message in wrong:
        with pytest.raises(RunError, match=message):
            write_run(tmp_path, make_record(), **{"frames": make_frames(), **change})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": " "}, "prompt must be"),
        ({"prompt": "a" * 4001}, "prompt must be"),
        ({"prompt": 7}, "prompt must be"),
        ({"prompt": "\ud800"}, "prompt must be"),
        ({"seed": -1}, "seed must be"),
        ({"seed": True}, "seed must be"),
        ({"seed": 2**63}, "seed must be"),
        ({"model_sha256": "00"}, "model hash"),
        ({"created": "yesterday"}, "created must look like"),
        ({"phenomena_version": "other"}, "another release"),
        ({"settings": {}}, "settings must hold steps"),
        ({"settings": {**make_record().settings, "fps": 0}}, "settings must hold fps"),
        ({"settings": [1]}, "settings must be an object"),
        ({"timings": {"denoise": float("inf")}}, "finite"),
        ({"timings": {"Denoise time": 1.0}}, "lower-case name"),
        ({"timings": {"denoise": "fast"}}, "timings must be seconds"),
        ({"unknown_words": ("a" * 201,)}, "unknown word"),
        ({"steering": {"refinement": {3: 0}}}, "steering must be a Steering"),
    ],
)
def test_an_invalid_record_cannot_be_built(changes: dict, message: str):
    with pytest.raises(RunError, match=message):
        make_record(**changes)


# --- nothing touched is believed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["video.mp4", "poster.png", "routing.npz", "sheet.png"])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_flipped_bit_in_any_file_is_noticed(copy: Path, name: str, data: st.DataObject):
    path = copy / name
    before = path.read_bytes()
    position = data.draw(st.integers(0, 8 * len(before) - 1))
    after = bytearray(before)
    after[position // 8] ^= 1 << position % 8
    path.write_bytes(after)
    try:
        assert f"{name} does not match its SHA-256" in refusal(copy)
    finally:
        path.write_bytes(before)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_run_json_is_refused_or_still_valid_but_never_crashes(copy: Path, data: st.DataObject):
    path = copy / "run.json"
    before = path.read_bytes()
    start = data.draw(st.integers(0, len(before) - 1))
    path.write_bytes(before[:start] + data.draw(st.binary(max_size=8)) + before[start + data.draw(st.integers(0, 8)) :])
    try:
        read_run(copy).trace()
    except RunError as error:
        assert "\n" not in str(error)  # noqa: PT017 (a valid change is no failure)
    finally:
        path.write_bytes(before)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(field=st.sampled_from(sorted({*RunRecord.__dataclass_fields__, "schema", "files"})), value=JSON)
def test_any_json_in_any_field_is_refused_or_valid_but_never_crashes(copy: Path, field: str, value: object):
    before = (copy / "run.json").read_bytes()
    document = json.loads(before)
    document[field] = value
    (copy / "run.json").write_text(json.dumps(document))
    try:
        read_run(copy)
    except RunError as error:
        assert "\n" not in str(error)  # noqa: PT017 (a valid change is no failure)
    finally:
        (copy / "run.json").write_bytes(before)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[]", "must hold an object"),
        (b"[" * 100_000, "not valid JSON"),
        (b'{"schema": NaN}', "not valid JSON"),
        (b" " * (runs._RECORD_MAX_BYTES + 1), "is larger than"),
        (b'{"schema": 1}', "lacks created"),
        (b'{"schema": 2}', "not of schema 1"),
        (b'{"schema": true}', "not of schema 1"),
    ],
)
def test_a_run_json_that_is_no_record_is_refused(copy: Path, raw: bytes, message: str):
    (copy / "run.json").write_bytes(raw)
    assert message in refusal(copy)


def test_a_file_entry_cannot_name_another_place(copy: Path):
    files = json.loads((copy / "run.json").read_text())["files"]
    for name in ("../whole/video.mp4", "/etc/passwd", "run.json", "notes.txt"):
        edit(copy, files={**files, name: files["video.mp4"]})
        assert "is not a file of a run" in refusal(copy)


def test_a_missing_or_unlisted_video_is_refused(copy: Path):
    files = json.loads((copy / "run.json").read_text())["files"]
    edit(copy, files={name: entry for name, entry in files.items() if name != "video.mp4"})
    assert "files must hold poster.png and video.mp4" in refusal(copy)
    edit(copy, files=files)
    (copy / "video.mp4").unlink()
    assert "video.mp4 cannot be read" in refusal(copy)


def test_links_and_pipes_inside_a_run_are_refused(copy: Path, tmp_path: Path):
    poster = copy / "poster.png"
    (tmp_path / "elsewhere").write_bytes(poster.read_bytes())
    poster.unlink()
    poster.symlink_to(tmp_path / "elsewhere")
    assert "poster.png cannot be read" in refusal(copy)
    poster.unlink()
    os.mkfifo(poster)
    assert "poster.png is not a regular file" in refusal(copy)
    poster.unlink()
    poster.mkdir()
    assert "poster.png" in refusal(copy)


def test_a_linked_run_is_refused_and_not_listed(whole: Run, tmp_path: Path):
    (tmp_path / "linked").symlink_to(whole.path)
    assert "is a link" in refusal(tmp_path / "linked")
    assert list_runs(tmp_path) == []


@pytest.mark.parametrize(
    "run_id", ["..", ".", "", "/etc", "a/b", "a\\b", "A", "a_b", "a--b", "-a", "a-", "a\n", "é", "a" * 97, 7, None]
)
def test_an_id_that_is_no_run_id_is_refused_before_the_disk_is_touched(tmp_path: Path, run_id: object):
    with pytest.raises(RunError, match="is not a run id"):
        find_run(tmp_path, run_id)


def test_finding_a_run_that_is_not_there_says_so(tmp_path: Path):
    with pytest.raises(RunError, match="no run at"):
        find_run(tmp_path, "absent")


def rehash(path: Path, name: str) -> None:
    """Make run.json agree with a file that was replaced, as a careful forger would."""
    entry = runs._stored_file(path / name, 2**30)
    files = json.loads((path / "run.json").read_text())["files"]
    edit(path, files={**files, name: {"bytes": entry.bytes, "sha256": entry.sha256}})


def test_a_truncated_routing_file_is_refused_even_with_a_matching_hash(copy: Path):
    whole_bytes = (copy / "routing.npz").read_bytes()
    for share in (0, 0.3, 0.7, 0.99):
        (copy / "routing.npz").write_bytes(whole_bytes[: int(share * len(whole_bytes))])
        rehash(copy, "routing.npz")
        assert "routing" in refusal(copy)


def test_routing_with_a_pickle_inside_is_refused_and_not_run(copy: Path, tmp_path: Path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    np.savez(copy / "routing.npz", about=np.array([Trap()], dtype=object))
    rehash(copy, "routing.npz")
    assert "routing.npz is not a valid routing trace" in refusal(copy)
    assert not (tmp_path / "sprung").exists()


def test_routing_of_another_run_is_refused_even_with_a_matching_hash(copy: Path):
    make_trace(prompt="another").save(copy / "routing.npz")
    rehash(copy, "routing.npz")
    assert "another prompt" in refusal(copy)


def test_a_video_of_another_length_is_refused_even_with_a_matching_hash(copy: Path):
    other = write_run(copy.parent, make_record(grid=TokenGrid(2, 4, 5)), make_frames(grid=TokenGrid(2, 4, 5)))
    shutil.copy(other.video_path, copy / "video.mp4")
    rehash(copy, "video.mp4")
    with pytest.raises(RunError, match="has 5 frames, not 9"):
        read_run(copy).clip()


def test_one_bad_run_does_not_hide_the_others(tmp_path: Path, whole: Run, caplog: pytest.LogCaptureFixture):
    shutil.copytree(whole.path, tmp_path / "good")
    shutil.copytree(whole.path, tmp_path / "bad")
    (tmp_path / "bad" / "video.mp4").write_bytes(b"short")
    with caplog.at_level(logging.WARNING):
        assert [run.id for run in list_runs(tmp_path)] == ["good"]
    assert "run bad: video.mp4 has 5 bytes" in caplog.text
