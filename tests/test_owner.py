"""Whose a run is: a file that is not part of what makes a run valid, and that trusts nothing."""

import os
import zipfile
from pathlib import Path

import pytest
from synthetic import make_frames, make_record

from prophy.runs.export import export_zip
from prophy.runs.owner import OwnerError, read_owner, runs_of, write_owner
from prophy.runs.store import read_run, write_run

ME, OTHER = "a" * 64, "b" * 64


def test_a_run_keeps_its_owner_and_is_the_same_run_without(tmp_path: Path):
    run = write_run(tmp_path, make_record(), make_frames(), owner=ME)
    assert read_owner(run.path) == ME
    assert "owner" not in run.files
    (run.path / "owner").unlink()
    assert read_run(run.path) == run
    assert read_owner(run.path) is None


def test_an_owner_is_written_once(tmp_path: Path):
    write_owner(tmp_path, ME)
    with pytest.raises(FileExistsError):
        write_owner(tmp_path, OTHER)
    assert read_owner(tmp_path) == ME


@pytest.mark.parametrize("digest", ["", "a" * 63, "A" * 64, "a" * 64 + "\n", "../" * 21 + "a"])
def test_what_is_no_digest_is_not_written(tmp_path: Path, digest: str):
    with pytest.raises(OwnerError, match="64 hexadecimal digits"):
        write_owner(tmp_path, digest)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_owner_is_an_error_and_not_nobody(tmp_path: Path):
    def empty(path: Path) -> None:
        path.write_text("")

    def long(path: Path) -> None:
        path.write_text("a" * 65)

    def link(path: Path) -> None:
        (tmp_path / "other").write_text(ME)
        path.symlink_to(tmp_path / "other")

    for damage in (empty, long, link, Path.mkdir, os.mkfifo):
        folder = tmp_path / damage.__name__
        folder.mkdir()
        damage(folder / "owner")
        with pytest.raises(OwnerError, match="cannot be read"):
            read_owner(folder)


def test_the_last_runs_of_an_owner_are_found_among_others(tmp_path: Path):
    for number, owner in enumerate((ME, OTHER, ME, None, ME)):
        folder = tmp_path / f"run-{number}"
        folder.mkdir()
        if owner is not None:
            write_owner(folder, owner)
    (tmp_path / ".partial-run-9").mkdir()
    write_owner(tmp_path / ".partial-run-9", ME)
    (tmp_path / "run-7").write_text("a file")
    assert runs_of(tmp_path, ME, 2) == ["run-4", "run-2"]
    assert runs_of(tmp_path, "", 9) == []
    assert runs_of(tmp_path / "missing", ME, 9) == []


def test_a_packed_run_does_not_tell_its_owner(tmp_path: Path):
    run = write_run(tmp_path / "runs", make_record(), make_frames(), owner=ME)
    packed = zipfile.ZipFile(export_zip(run, tmp_path / "run.zip"))
    assert not any("owner" in name for name in packed.namelist())
    assert not any(ME.encode() in packed.read(name) for name in packed.namelist())
