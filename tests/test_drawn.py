"""Kept clips of the worlds are known by what the worlds draw: none is taken for another after a scene was changed."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from conftest import make_vae

from prophy.data.clip_pool import ClipPool
from prophy.data.latents import cache_note, open_cache, verify_worlds
from prophy.evaluation.judges.recogniser import train_recogniser
from prophy.evaluation.results.judges import RecogniserRecipe
from prophy.phenomena import IDS
from prophy.tiny.linear_code import pooled_code
from prophy.tiny.text import build_tokenizer
from prophy.tiny.vlm_lessons import Lessons
from prophy.training.progress import TrainingStopped
from prophy.worlds import COLOURS, EVENTS, Drawn, Stage, WorldSet, drawn, sample_clip
from prophy.worlds.captions import TEMPLATES
from prophy.worlds.stage import BACKGROUNDS

MELTING = WorldSet(("melting",))
CURE = "this release's worlds make otherwise: delete it to make them again, or choose another folder"


@pytest.fixture
def redraw(monkeypatch: pytest.MonkeyPatch):
    """Changes what the worlds draw, as another release would, and back."""

    def change(name: str = "red", rgb: tuple[int, int, int] = (190, 60, 70)) -> None:
        monkeypatch.setitem(COLOURS, name, rgb)
        drawn._drawn.cache_clear()

    def back() -> None:
        monkeypatch.undo()
        drawn._drawn.cache_clear()

    change.back = back  # type: ignore[attr-defined]
    yield change
    back()


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_clips_that_are_looked_at_show_every_scene_colour_and_setting(split: str):
    worlds = WorldSet(IDS, split)
    shown = [worlds.scenario(seed) for seed in drawn._showing_all(worlds)]
    assert len(shown) < 25, "they cost a second"
    scenes = {(event.phenomenon, event.variant) for one in shown for event in one.events}
    assert scenes == {(kind.phenomenon, kind.variant) for kinds in EVENTS.values() for kind in kinds}
    assert {colour for one in shown for event in one.events for colour in event.colours} == set(COLOURS)
    assert {one.setting for one in shown} == set(BACKGROUNDS)


def test_a_note_tells_scenes_captions_and_pictures_apart(redraw, monkeypatch):
    before = Drawn.by(MELTING)
    assert Drawn.from_record(json.loads(json.dumps(before.record()))) == before
    assert Drawn.by(WorldSet(("melting",), "test")).differences(before) == ["scenes", "captions", "pictures"]
    assert Drawn.by(WorldSet(("melting",), lawful=False)).differences(before) == ["pictures"]
    assert Drawn.by(WorldSet(("melting",), grammar="plain")).differences(before) == ["captions"]
    assert Drawn.by(WorldSet(("melting",), stage=Stage(96, 64))).differences(before) == ["pictures"]
    redraw()
    assert Drawn.by(MELTING).differences(before) == ["pictures"]
    monkeypatch.setattr(drawn, "_machine", lambda: "another")
    redraw()
    assert Drawn.by(MELTING).differences(before) == [], "its last digits are not known"
    for damaged in ("x", {}, {"scenes": 1}, {**before.record(), "pictures": None}, {**before.record(), "more": ""}):
        with pytest.raises(ValueError, match="what the worlds draw is damaged"):
            Drawn.from_record(damaged)


def test_a_pool_is_refused_once_a_colour_is_another(tmp_path: Path, redraw, caplog):
    """Before, a training went on with clips that no caption, mask or judge of this release is of."""
    pool = ClipPool(tmp_path / "pool", 3, Stage(), workers=1)
    code = tmp_path / "code.safetensors"
    pooled_code(code, pool, 8, 4)
    assert ClipPool(tmp_path / "pool", 3, Stage(), workers=1).drawn == pool.drawn != ""
    redraw()
    with pytest.raises(ValueError, match=f"holds clips whose pictures {CURE}") as refused:
        ClipPool(tmp_path / "pool", 3, Stage(), workers=1)
    assert "\n" not in str(refused.value)
    other = ClipPool(tmp_path / "other", 3, Stage(), workers=1)
    with pytest.raises(ValueError, match="is the code of other clips than the pool's: delete it"):
        pooled_code(code, other, 8, 4)
    marker = tmp_path / "pool" / "pool.json"
    about = json.loads(marker.read_text())
    marker.write_text(json.dumps({**about, "drawn": 3}))
    with pytest.raises(ValueError, match="is damaged .*delete"):
        ClipPool(tmp_path / "pool", 3, Stage(), workers=1)
    del about["drawn"]
    marker.write_text(json.dumps(about))  # as an older release left it
    with caplog.at_level(logging.WARNING):
        assert ClipPool(tmp_path / "pool", 3, Stage(), workers=1).drawn == ""
    seen = [seed for seed in range(3) if np.any(sample_clip(seed, lawful=seed % 2 == 0).frames != pool.frames[seed])]
    assert seen, "none of the clips shows the colour: the test shows nothing"
    assert f"rendered by an older release, and clip {seen[0]} is another" in caplog.text
    caplog.clear()
    redraw.back()
    with caplog.at_level(logging.WARNING):
        assert ClipPool(tmp_path / "pool", 3, Stage(), workers=1).drawn == ""
    assert not caplog.text


def test_lessons_are_refused_once_a_colour_is_another(tmp_path: Path, redraw, caplog):
    lessons = Lessons(tmp_path, 2, "train")
    assert Lessons(tmp_path, 3, "train").drawn == lessons.drawn != "", "they grow"
    redraw()
    for count in (2, 4):
        with pytest.raises(ValueError, match=f"holds clips whose pictures {CURE}"):
            Lessons(tmp_path, count, "train")
    note = tmp_path / "train-fps4" / "drawn.json"
    note.unlink()  # as an older release left them
    for name in COLOURS:
        redraw(name)  # whatever its first clip shows
    with caplog.at_level(logging.WARNING):
        assert Lessons(tmp_path, 2, "train").drawn == ""
    assert "rendered by an older release, and clip 0 is another" in caplog.text
    note.write_text("[")
    with pytest.raises(ValueError, match="drawn.json is damaged"):
        Lessons(tmp_path, 2, "train")


def test_a_cache_of_worlds_is_refused_once_they_draw_or_say_it_otherwise(tmp_path: Path, redraw, monkeypatch, caplog):
    """Its masks and labels are the same after a colour was changed: nothing else tells."""
    vae = make_vae(4).requires_grad_(False)
    tokenizer = build_tokenizer([text for seed in range(20) for text in MELTING.captions(seed, 4)])
    open_cache(tmp_path, vae, tokenizer, 2, MELTING)
    open_cache(tmp_path, vae, tokenizer, 3, MELTING)
    assert cache_note(tmp_path).drawn == Drawn.by(MELTING)
    assert verify_worlds(tmp_path) == []
    for name in COLOURS:
        redraw(name)
    for count in (3, 4):
        with pytest.raises(ValueError, match=f"holds clips whose pictures {CURE}"):
            open_cache(tmp_path, vae, tokenizer, count, MELTING)
    (problem,) = verify_worlds(tmp_path)
    assert "this release's worlds make other pictures: delete the folder" in str(problem)
    monkeypatch.setattr(drawn, "_machine", lambda: "another")
    drawn._drawn.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert len(open_cache(tmp_path, vae, tokenizer, 3, MELTING)) == 3
    assert "rendered on another kind of machine" in caplog.text
    assert [problem.harmless for problem in verify_worlds(tmp_path)] == [True]
    redraw.back()
    for name in [name for name in TEMPLATES if name[0] == "melting"]:
        others = tuple(tuple(f"{text}, slowly" for text in texts) for texts in TEMPLATES[name])
        monkeypatch.setitem(TEMPLATES, name, others)
    drawn._drawn.cache_clear()
    with pytest.raises(ValueError, match=f"holds clips whose captions {CURE}"):
        open_cache(tmp_path, vae, tokenizer, 3, MELTING)
    marker = tmp_path / "cache.json"
    about = json.loads(marker.read_text())
    del about["drawn"]
    marker.write_text(json.dumps(about))
    assert len(open_cache(tmp_path, vae, tokenizer, 3, MELTING)) == 3, "a cache of an older release opens as before"
    assert cache_note(tmp_path).drawn is None


def test_a_stopped_judge_is_not_resumed_on_clips_that_are_drawn_otherwise(tmp_path: Path, redraw):
    recipe = RecogniserRecipe(clips=6, test_clips=4, steps=2, batch=4, width=8)
    with pytest.raises(TrainingStopped, match="start it again to resume"):
        train_recogniser(tmp_path, recipe, minutes=1e-9)
    for name in COLOURS:
        redraw(name)
    with pytest.raises(ValueError, match="was trained on clips that were drawn otherwise: choose another folder"):
        train_recogniser(tmp_path, recipe)
    redraw.back()
    train_recogniser(tmp_path, recipe)
    assert (tmp_path / "recogniser.safetensors").is_file()
