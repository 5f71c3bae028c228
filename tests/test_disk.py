"""The disk is bounded: runs that are kept, what killed writes leave, files that last for minutes, uploads."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from synthetic import make_frames, make_record, make_trace

from prophy.files import take_lock
from prophy.runs.keep import OWN_MACHINE, PIN, PUBLIC, RunLimits, sweep_runs
from prophy.runs.store import list_runs, write_run
from prophy.ui.cli import _kept, build_parser
from prophy.ui.engine import scratch
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.events import Finished
from prophy.ui.engine.presence import Presence
from prophy.ui.engine.request import Request
from prophy.ui.engine.scratch import Scratch, every
from prophy.ui.engine.visitors import owner_of
from prophy.ui.gate import Gate

ME = owner_of("1" * 64)
DAY = 86400.0


def kept_run(root: Path, name: str, age: float, owner: str | None = ME) -> Path:
    """A run that was written some seconds ago."""
    folder = write_run(root, make_record(), make_frames(), run_id=name, owner=owner).path
    os.utime(folder, (time.time() - age,) * 2)
    return folder


def names(root: Path) -> set[str]:
    return {run.id for run in list_runs(root)}


# --- runs -------------------------------------------------------------------------------------------------------------


def test_the_oldest_runs_go_by_number(tmp_path: Path):
    for i in range(5):
        kept_run(tmp_path, f"run-{i}", age=100.0 * i)
    assert sweep_runs(tmp_path, RunLimits(runs=3)) == ["run-4", "run-3"]
    assert names(tmp_path) == {"run-0", "run-1", "run-2"}
    assert sweep_runs(tmp_path, RunLimits()) == []


def test_the_oldest_runs_go_by_bytes_and_the_last_one_stays(tmp_path: Path):
    folders = [kept_run(tmp_path, f"run-{i}", age=100.0 * i) for i in range(4)]
    size = sum(path.stat().st_size for path in folders[0].iterdir())
    assert sweep_runs(tmp_path, RunLimits(gib=2.5 * size / 2**30)) == ["run-3", "run-2"]
    assert sweep_runs(tmp_path, RunLimits(gib=0.5 * size / 2**30)) == ["run-1"]
    assert names(tmp_path) == {"run-0"}


def test_the_oldest_runs_go_by_age(tmp_path: Path):
    for days in (1, 6, 8, 30):
        kept_run(tmp_path, f"run-{days}", age=days * DAY)
    assert sweep_runs(tmp_path, RunLimits(days=7)) == ["run-30", "run-8"]
    assert names(tmp_path) == {"run-1", "run-6"}


def test_pinned_runs_stay_and_runs_that_nobody_owns_on_ones_own_machine(tmp_path: Path):
    pinned = kept_run(tmp_path, "pinned", age=50 * DAY)
    (pinned / PIN).touch()
    kept_run(tmp_path, "of-the-command-line", age=40 * DAY, owner=None)
    kept_run(tmp_path, "mine", age=30 * DAY)
    assert sweep_runs(tmp_path, RunLimits(days=7)) == ["mine"]
    assert sweep_runs(tmp_path, RunLimits(days=7, unowned=True)) == ["of-the-command-line"]
    assert names(tmp_path) == {"pinned"}


def test_what_is_no_run_is_left_alone(tmp_path: Path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "run.txt").write_text("mine")
    (tmp_path / "a-file").write_text("mine")
    (tmp_path / "outside").symlink_to(kept_run(tmp_path / "elsewhere", "run", age=90 * DAY))
    assert sweep_runs(tmp_path, RunLimits(runs=1, days=1, unowned=True)) == []
    assert (tmp_path / "outside").exists()
    assert (tmp_path / "notes" / "run.txt").read_text() == "mine"
    assert sweep_runs(tmp_path / "missing", RunLimits(runs=1)) == []


def test_what_killed_writes_left_goes_at_the_start_and_what_is_being_written_stays(tmp_path: Path):
    for name, age in ((".partial-a", 7200), (".deleted-b", 7200), (".partial-now", 5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "video.mp4").write_bytes(b"x")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    Engine(runs=tmp_path, gallery=tmp_path / "gallery")
    assert {path.name for path in tmp_path.iterdir()} == {".partial-now"}


def test_the_engine_sweeps_after_every_run_and_the_shipped_ones_stay(tiny_pipeline, tmp_path: Path):
    write_run(tmp_path / "gallery", make_record(), make_frames(), trace=make_trace(), run_id="shipped")
    os.utime(tmp_path / "gallery" / "shipped", (0, 0))
    engine = Engine(
        runs=tmp_path / "runs",
        gallery=tmp_path / "gallery",
        open_pipeline=lambda *_: tiny_pipeline,
        keep=RunLimits(runs=2, days=7, unowned=True),
    )
    made = []
    for seed in range(3):
        *_, finished = engine.generate(Request("a red ball bounces", seed=seed, steps=1), "a", ME)
        assert isinstance(finished, Finished)
        made.append(finished.run.id)
        os.utime(finished.run.path, (time.time() - 100 * (3 - seed),) * 2)
    assert {run.id for run in engine.runs.history(ME)} == set(made[1:])
    assert [run.id for run in engine.runs.gallery()] == ["shipped"]


def test_only_one_of_two_apps_sweeps_and_a_killed_one_does_not_stay_in_the_way(tmp_path: Path):
    kept_run(tmp_path, "old", age=30 * DAY)
    lock = str(tmp_path / ".sweep")
    code = f"from prophy.files import take_lock; held = take_lock({lock!r}); print(held, flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert "None" not in other.stdout.readline()
    assert sweep_runs(tmp_path, RunLimits(days=7)) == []
    other.kill()
    other.wait()
    assert sweep_runs(tmp_path, RunLimits(days=7)) == ["old"]


def test_many_sweeps_at_once_delete_each_run_once(tmp_path: Path):
    for i in range(12):
        kept_run(tmp_path, f"run-{i}", age=30 * DAY + i)
    gone = []
    threads = [threading.Thread(target=lambda: gone.extend(sweep_runs(tmp_path, RunLimits(days=7)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(gone) == sorted(f"run-{i}" for i in range(12))
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("flags", "defaults", "kept"),
    [
        ([], OWN_MACHINE, OWN_MACHINE),
        ([], PUBLIC, PUBLIC),
        (["--keep-runs", "5", "--keep-gib", "0.5"], PUBLIC, RunLimits(5, 0.5, 7.0, True)),
        (["--keep-runs", "all", "--keep-days", "all"], PUBLIC, RunLimits(None, 5.0, None, True)),
    ],
)
def test_flags_say_what_is_kept(flags: list[str], defaults: RunLimits, kept: RunLimits):
    assert _kept(build_parser().parse_args(flags), defaults) == kept


@pytest.mark.parametrize("value", ["0", "-1", "nan", "some"])
def test_flags_refuse_limits_that_are_none(value: str, capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--keep-days", value])
    assert "must be a number above 0, or all" in capsys.readouterr().err


# --- files that last for minutes --------------------------------------------------------------------------------------


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_files_for_callers_are_swept_by_time_though_none_comes(temporary: Path, monkeypatch):
    monkeypatch.setattr(scratch, "_KEPT_SECONDS", 0.3)
    monkeypatch.setattr(scratch, "_SWEEP_SECONDS", 0.1)
    folder = Scratch().new_folder()
    (folder / "overlay.mp4").write_bytes(b"x")
    assert folder.is_relative_to(temporary)
    end = time.monotonic() + 10
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not folder.exists()


def test_what_of_a_visitor_s_file_arrived_goes_though_the_rest_never_came(temporary: Path, monkeypatch):
    monkeypatch.setattr(scratch, "_SWEEP_SECONDS", 0.1)
    received = Scratch().received  # where gradio writes what arrives, and keeps what is whole in folders
    (received / "whole").mkdir()
    for name in ("tmp1", "tmp2", "whole/clip.mp4"):
        (received / name).write_bytes(b"x")
    hours_ago = time.time() - 7200
    for name in ("tmp1", "whole/clip.mp4", "whole"):
        os.utime(received / name, (hours_ago, hours_ago))
    end = time.monotonic() + 10
    while (received / "tmp1").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not (received / "tmp1").exists()
    assert (received / "tmp2").exists(), "it still arrives"
    assert (received / "whole" / "clip.mp4").exists(), "gradio's own to sweep"


def test_parallel_callers_never_race_over_a_sweep(temporary: Path, monkeypatch):
    monkeypatch.setattr(scratch, "_KEPT_SECONDS", 0.0)
    files, failed = Scratch(), []
    for _ in range(200):
        files.new_folder()

    def work() -> None:
        try:
            for _ in range(20):
                files.sweep()
                files.new_folder()
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_a_killed_app_s_folder_goes_with_the_next_start_and_a_living_one_s_stays(temporary: Path, monkeypatch):
    monkeypatch.setattr(scratch, "_NEW_SECONDS", 0.0)
    alive = Scratch().path
    code = "from prophy.ui.engine.scratch import Scratch; print(Scratch().path, flush=True); input()"
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", code]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    left = Path(other.stdout.readline().strip())
    other.kill()
    other.wait()
    assert left.is_dir()
    assert Scratch().path.is_dir()
    assert not left.exists()
    assert alive.is_dir()


def test_every_goes_on():
    seen = threading.Semaphore(0)
    every(0.02, seen.release)
    assert all(seen.acquire(timeout=5) for _ in range(3))


def test_a_lock_is_held_by_one_and_freed_when_it_is_closed(tmp_path: Path):
    first = take_lock(tmp_path / "lock")
    assert first is not None
    assert take_lock(tmp_path / "lock") is None
    first.close()
    again = take_lock(tmp_path / "lock")
    assert again is not None
    again.close()


# --- uploads ----------------------------------------------------------------------------------------------------------


def upload(length: int | None) -> dict:
    headers = [] if length is None else [(b"content-length", str(length).encode())]
    return {"type": "http", "method": "POST", "path": "/gradio_api/upload", "headers": headers}


def test_uploads_are_bounded_in_size_number_and_total(monkeypatch):
    from prophy.ui import gate

    async def app(scope, receive, send) -> None:
        raise AssertionError("not asked here")

    shut = Gate(app, Presence(), 0, None)  # type: ignore[arg-type]  no queue is asked
    assert shut._refused_upload(upload(10)) == (403, "this app takes no files")
    monkeypatch.setattr(gate, "_MOST_UPLOADS", 3)
    monkeypatch.setattr(gate, "_MOST_UPLOADED", 5 * 2**20)
    taken = Gate(app, Presence(), 2**21, None)  # type: ignore[arg-type]
    assert taken._refused_upload(upload(None))[0] == 411
    assert taken._refused_upload(upload(2**22)) == (413, "the file is too large: send at most 2 MiB")
    assert [taken._refused_upload(upload(2**21)) for _ in range(2)] == [None, None]
    assert taken._refused_upload(upload(2**21))[0] == 429, "the total"
    assert taken._refused_upload(upload(10)) is None
    assert taken._refused_upload(upload(10))[0] == 429, "the number"
    monkeypatch.setattr(gate, "UPLOADS_KEPT_SECONDS", 0.0)
    assert taken._refused_upload(upload(10)) is None
