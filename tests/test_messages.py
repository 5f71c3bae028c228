"""What visitors are told: one line, not long, with no path of this machine, whatever went wrong."""

import os
from pathlib import Path

import pytest
from chromium import free_port
from gradio_client import Client
from gradio_client.exceptions import AppError
from synthetic import make_frames, make_record, make_trace

from prophy.runs.store import write_run
from prophy.ui.controls import messages
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.errors import LONGEST, EngineError, for_visitors
from prophy.ui.engine.exports import export_run
from prophy.ui.engine.request import Request
from prophy.ui.engine.visitors import owner_of

PROMPT = "a red ball bounces"
ME = owner_of("1" * 64)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("no run at /srv/prophy/runs/a-b", "no run at a-b"),
        ("cannot read '/home/some one/my runs/x y.mp4': no such file", "cannot read 'x y.mp4': no such file"),
        ('"/a/b/c" is a folder', '"c" is a folder'),
        ("C:\\Users\\me\\runs\\x.npz is damaged", "x.npz is damaged"),
        ("files (/tmp/a, /tmp/b/): none", "files (a, b): none"),
        ("step 3/4 of ../x or runs/y", "step 3/4 of ../x or runs/y"),
        ("see https://example.org/a/b for more", "see https://example.org/a/b for more"),
        ("two\nlines\tand  more", "two lines and more"),
        (
            OSError(28, "No space left on device", "/srv/runs/video.mp4"),
            "No space left on device: video.mp4",
        ),
        (FileExistsError(17, "File exists", "/srv/runs"), "File exists: runs"),
        (OSError("odd /srv/x"), "odd x"),
        (KeyError("no expert /srv/x"), "no expert x"),
        (ValueError(), ""),
    ],
)
def test_paths_of_this_machine_lose_their_folders(message: str | BaseException, said: str):
    assert for_visitors(message) == said


def test_no_message_is_long():
    assert len(for_visitors("word " * 500)) == LONGEST
    assert for_visitors("word " * 500).endswith("…")
    words = messages.unknown_words([f"word{i}" for i in range(300)])
    assert "word7 and 292 more. It works" in words
    assert len(words) < LONGEST + 100, "with its tags"
    assert "word299" in messages.unknown_words(["word299"])


def fits(text: str, tmp_path: Path) -> bool:
    return 0 < len(text) <= LONGEST and "\n" not in text and str(tmp_path) not in text and str(Path.home()) not in text


def test_a_runs_folder_that_is_a_file_is_said_without_its_path(tiny_pipeline, tmp_path: Path):
    (tmp_path / "runs").write_text("in the way")
    engine = Engine(runs=tmp_path / "runs", gallery=tmp_path / "gallery", open_pipeline=lambda *_: tiny_pipeline)
    assert engine.runs.history(ME) == []
    with pytest.raises(EngineError, match="the generation failed: .*runs") as caught:
        list(engine.generate(Request(PROMPT, steps=1), "a", ME))
    assert fits(str(caught.value), tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_full_disk_is_said_without_a_path(tiny_pipeline, tmp_path: Path, monkeypatch):
    """Every file of an export is written into a device that is always full."""
    from prophy.runs import export

    run = write_run(tmp_path, make_record(), make_frames(), trace=make_trace(), run_id="shipped")

    def full(*_: object, **__: object) -> None:
        descriptor = os.open("/dev/full", os.O_WRONLY)
        try:
            os.write(descriptor, b"x")
        except OSError as error:
            error.filename = str(tmp_path / "x.png")
            raise
        finally:
            os.close(descriptor)

    monkeypatch.setattr(export, "write_png", full)
    with pytest.raises(EngineError) as caught:
        export_run(run.path, tmp_path, "still")
    assert str(caught.value) == "No space left on device: x.png"


def test_programs_get_one_line_for_whatever_they_send(tiny_pipeline, tmp_path: Path):
    from prophy.ui.page import build_demo, launch

    write_run(tmp_path / "gallery", make_record(), make_frames(), trace=make_trace(), run_id="shipped")
    engine = Engine(runs=tmp_path / "runs", gallery=tmp_path / "gallery", open_pipeline=lambda *_: tiny_pipeline)
    demo = build_demo(engine)
    client = Client(launch(demo, port=free_port()), verbose=False)
    odd = [None, True, "x" * 2000, 3.5, -1, 10**30, [], {}, {"a": [1]}, str(tmp_path), "/etc/passwd", "<b>", "\0"]
    calls = [("inspect_token", {"run": value, "frame": 0, "row": 0, "column": 0}) for value in odd]
    calls += [("inspect_token", {"run": "shipped", "frame": value, "row": 0, "column": 0}) for value in odd]
    calls += [("export_overlay", {"run": "shipped", "index": value, "mode": "expert"}) for value in odd]
    calls += [("export_overlay", {"run": "shipped", "step": value}) for value in odd]
    calls += [("generate", {"prompt": value, "steps": 1, "seed": -1}) for value in odd]
    calls += [("generate", {"prompt": PROMPT, "steps": 1, "seed": -1, "profile": value}) for value in odd]
    calls += [("generate", {"prompt": PROMPT, "steps": value, "seed": -1}) for value in odd]
    calls += [("generate", {"prompt": PROMPT, "steering": value, "seed": -1}) for value in odd]
    refusals = []
    for endpoint, arguments in calls:
        try:
            client.predict(**arguments, api_name=f"/{endpoint}")
        except AppError as error:
            refusals.append((str(error), endpoint, arguments))
    demo.close(verbose=False)
    assert len(refusals) > len(calls) / 2
    for said, *of in refusals:
        assert fits(said, tmp_path), (said, of)
        assert "verbose error reporting" not in said, of
