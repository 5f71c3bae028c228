"""Two of a kind on one folder: the second is refused, and a killed one is not in the way."""

import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from small_training import RECIPE, RandomClips, run

from prophy.files import exclusive


@dataclass
class Part:
    index: int
    count: int


@exclusive("writing")
def write(out: Path, shard: Part | None = None, until: threading.Event | None = None) -> str:
    (out / "file").write_text("x")
    if until is not None:
        until.wait(timeout=20)
    return "written"


def busy(out: Path, shard: Part | None = None) -> tuple[threading.Thread, threading.Event]:
    until = threading.Event()
    thread = threading.Thread(target=write, args=(out, shard, until))
    thread.start()
    end = time.monotonic() + 10
    while not (out / "file").exists() and time.monotonic() < end:
        time.sleep(0.01)
    return thread, until


def test_the_second_is_refused_and_the_next_is_not(tmp_path: Path):
    thread, until = busy(tmp_path / "a")
    with pytest.raises(ValueError, match="another process is writing into .*a: wait for it, or choose another folder"):
        write(tmp_path / "a")
    assert write(tmp_path / "b") == "written"
    until.set()
    thread.join()
    assert write(tmp_path / "a") == "written"
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"file"}, "the lock stays behind"


def test_workers_with_parts_of_their_own_are_not_in_each_others_way(tmp_path: Path):
    thread, until = busy(tmp_path, Part(0, 2))
    assert write(tmp_path, Part(1, 2)) == "written"
    with pytest.raises(ValueError, match="another process"):
        write(tmp_path, Part(0, 2))
    until.set()
    thread.join()


def test_the_other_processes_of_one_training_are_not_refused(tmp_path: Path, monkeypatch):
    thread, until = busy(tmp_path)
    monkeypatch.setenv("RANK", "1")
    assert write(tmp_path) == "written"
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ValueError, match="another process"):
        write(tmp_path)
    until.set()
    thread.join()


def test_what_fails_frees_its_folder_and_leaves_none(tmp_path: Path):
    @exclusive("failing")
    def fail(out: Path) -> None:
        raise RuntimeError("on purpose")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="on purpose"):
            fail(tmp_path / "new" / "nested")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_replaced_is_locked_beside_it(tmp_path: Path):
    @exclusive("replacing", beside=True)
    def replace(out: Path) -> str:
        assert not out.exists(), "the lock is not in it"
        with pytest.raises(ValueError, match="another process is replacing into .*model: wait for it"):
            again(out)
        out.mkdir()
        return "replaced"

    @exclusive("replacing", beside=True)
    def again(out: Path) -> str:
        raise AssertionError("two at once")

    assert replace(tmp_path / "models" / "model") == "replaced"
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["model"], "the lock stays behind"


def test_a_killed_process_leaves_no_lock(tmp_path: Path):
    code = f"""
from pathlib import Path
from prophy.files import exclusive
@exclusive("writing")
def work(out):
    print("holds it", flush=True)
    input()
work(Path({str(tmp_path)!r}))
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline().strip() == "holds it"
    with pytest.raises(ValueError, match="another process"):
        write(tmp_path)
    other.kill()
    other.wait()
    assert write(tmp_path) == "written"


def test_many_at_once_never_hold_it_together(tmp_path: Path):
    inside, most, refused = [], [], []

    @exclusive("counting")
    def count(out: Path) -> None:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.001)
        inside.pop()

    def work() -> None:
        for _ in range(40):
            try:
                count(tmp_path)
            except ValueError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) + len(refused) == 240


def test_two_trainings_on_one_folder_are_refused(tmp_path: Path):
    class Slow(RandomClips):
        def example(self, index: int, wording: int):
            if not seen:
                seen.append(1)
                with pytest.raises(ValueError, match="another process is training into"):
                    run(tmp_path / "run", RECIPE)
            return super().example(index, wording)

    seen: list[int] = []
    run(tmp_path / "run", RECIPE, examples=Slow())
    assert seen
