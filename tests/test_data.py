"""Training data: WISA-80K's real record forms and a folder of clips, with the dirt that comes with both."""

import json
import random
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from prophy.cli import main
from prophy.data import labels as label_data
from prophy.data.folder import read_folder
from prophy.data.labels import LABELS, QUESTIONS, SPELLINGS, WISA_17, WISA_29, LabelReader, entries, label_set
from prophy.data.records import (
    MAX_CAPTION,
    ClipRecord,
    Filters,
    Quantities,
    Range,
    apply_filters,
    count_labels,
    random_subset,
)
from prophy.data.tables import read_rows
from prophy.data.wisa import read_wisa
from prophy.phenomena import IDS, VERSION
from prophy.video import UnreadableClip, sample_frames, write_video


def annotation(**changes) -> dict:
    return {
        "phys_law": "Pressure deforms a body; past its strength it breaks.",
        "n0": "soil: 1.2 to 1.6 g/cm³",
        "n1": "0 to 5 seconds",
        "n2": "20 to 30 degrees celsius",
        "q0": "deformation, collision",
        "q1": "no obvious thermodynamic phenomenon.",
        "q2": "scattering",
        "q3": "no",
        "q4": "1. object decomposition and splitting\n2. gas objects appearance\n3. no change",
        "quantify_n0": [[1.2, 1.6]],
        "quantify_n1": [0.0, 5.0],
        "quantify_n2": [20.0, 30.0],
        **changes,
    }


def released(name: str = "3f2a.mp4", **changes) -> dict:
    """A record in the form of wisa-80k.json."""
    record = {
        "video_name": name,
        "captions": "A heavy press crushes a dry clump of soil.",
        "label": "deformation",
        "width": 1280,
        "height": 720,
        "fps": 25.0,
        "duration": 4.2,
        "motion_score": 3.1,
        "text_bbox_num": 0,
        "physical_annotation": annotation(),
    }
    return {**record, **changes}


def demo(**changes) -> dict:
    """A record in the form of the demo prompts: flat, and without a video."""
    flat = {key: value for key, value in annotation().items() if not key.startswith("quantify")}
    captions = {
        "en_caption": "A heavy press crushes soil.",
        "en_caption_1": "Soil is crushed.",
        "label": "Deformation ",
    }
    return {**flat, **captions, **changes}


def write_json(path: Path, records: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def read_one(tmp_path: Path, record: dict, **options) -> ClipRecord:
    reading = read_wisa(write_json(tmp_path / "one.json", [record]), **options)
    assert reading.faults == ()
    (found,) = reading.records
    return found


def reasons(reading) -> list[str]:
    return [fault.reason for fault in reading.faults]


def texts(tallies) -> dict[str, int]:
    return {tally.text: tally.count for tally in tallies}


def clip(frames: int = 8, height: int = 32, width: int = 48) -> np.ndarray:
    """Frame ``f`` is of one grey, 20 f, with a red square in the middle."""
    frames_FHWC = np.stack([np.full((height, width, 3), 20 * f, np.uint8) for f in range(frames)])
    frames_FHWC[:, height // 2 - 4 : height // 2 + 4, width // 2 - 4 : width // 2 + 4] = (220, 20, 20)
    return frames_FHWC


def greys(frames: np.ndarray) -> list[int]:
    """Which frame of :func:`clip` each frame is, from its upper left corner."""
    return [round(float(frame[1:4, 1:4].mean()) / 20) for frame in frames]


# --- labels


def test_the_29_labels_are_7_7_6_2_7_and_hold_the_17():
    assert [sum(label.question == q for label in LABELS) for q in range(5)] == [7, 7, 6, 2, 7]
    assert len({label.id for label in LABELS}) == len(WISA_29) == 29
    assert {label.id for label in LABELS if label.is_phenomenon} == set(IDS)
    assert [label.id for label in LABELS if label.is_none] == [
        *("no_obvious_dynamic_phenomenon", "no_obvious_thermodynamic_phenomenon", "no_obvious_optical_phenomenon")
    ]
    assert (WISA_17.version, WISA_17.ids) == (VERSION, IDS)
    # WISA's order and ours differ: whoever takes the first columns for the 17 gets two of them swapped.
    assert WISA_29.ids.index("explosion") < WISA_29.ids.index("combustion")
    assert IDS.index("combustion") < IDS.index("explosion")


def test_every_spelling_variant_means_one_of_the_29():
    names = {label.name for label in LABELS}
    assert set(SPELLINGS.values()) <= names
    assert not set(SPELLINGS) & names


@pytest.mark.parametrize("label", LABELS, ids=lambda label: label.id)
def test_each_label_is_read_under_its_question_by_its_name(label):
    reader = LabelReader(WISA_29)
    assert reader.read_answers({QUESTIONS[label.question]: f"1. {label.name.title()}. "}, "a") == (label.id,)
    report = reader.report()
    assert report.not_understood == report.outside == report.misplaced == report.respelt == ()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("deformation, collision", ["deformation", "collision"]),
        ("1. Gas  Objects\tAppearance\r\n2. no change.", ["gas objects appearance", "no change"]),
        (" Deformation \u00a0,", ["deformation"]),
        ("rigid_body_motion", ["rigid body motion"]),
        ("['melting', 'combustion']", ["melting", "combustion"]),
        ("- melting\n• explosion", ["melting", "explosion"]),
        ("melting，explosion", ["melting", "explosion"]),
        (" .,\n", []),
    ],
)
def test_answers_are_taken_apart_into_entries(answer: str, expected: list):
    assert entries(answer) == expected


def test_an_entry_that_only_contains_a_label_is_not_that_label():
    reader = LabelReader(WISA_17)
    assert reader.read_answers({"q0": "no collision, soft body motion", "q1": "slow melting"}, "a") == ()
    report = reader.report()
    assert texts(report.not_understood) == {"q0: no collision": 1, "q0: soft body motion": 1, "q1: slow melting": 1}
    assert report.not_understood[0].examples == ("a",)


def test_no_obvious_phenomenon_means_none_and_is_no_fault():
    reader = LabelReader(WISA_17)
    answers = {
        "q0": "no obvious dynamic phenomenon",
        "q1": "No obvious thermodynamic phenomenon. ",
        "q2": "no obvious phenomenon",
    }
    assert reader.read_answers(answers, "a") == ()
    assert reader.report() == label_data.LabelReport()
    assert len(LabelReader(WISA_29).read_answers(answers, "a")) == 3


def test_both_spellings_of_liquids_appearing_are_one_label():
    reader = LabelReader(WISA_29)
    for answer in ("1. liquid objects appearance", "1. liquids objects appearance"):
        assert reader.read_answers({"q4": answer}, "a") == ("liquids_objects_appearance",)
    assert texts(reader.report().respelt) == {"q4: liquid objects appearance": 1}


def test_what_is_odd_is_read_where_it_is_clear_and_counted():
    reader = LabelReader(WISA_17)
    answers = {
        "q0": "melting, no change, no obvious thermodynamic phenomenon",
        "q1": ["explosion", 7],
        "q2": None,
        "q4": "anything: the 17 do not ask it",
    }
    assert reader.read_answers(answers, "a") == ("melting", "explosion")
    report = reader.report()
    assert texts(report.misplaced) == {
        "q0: melting": 1,
        "q0: no change": 1,
        "q0: no obvious thermodynamic phenomenon": 1,
    }
    assert texts(report.outside) == {"q0: no change": 1}
    assert texts(report.not_understood) == {"q1: 7": 1}
    assert texts(report.unanswered) == {"q2": 1}
    assert texts(report.contradictory) == {"no obvious thermodynamic phenomenon, and one": 1}


def test_yes_and_no_answer_only_the_question_about_the_camera():
    reader = LabelReader(WISA_29)
    assert reader.read_answers({"q0": "yes", "q3": "No."}, "a") == ("no_camera_motion",)
    assert texts(reader.report().not_understood) == {"q0: yes": 1}


def test_there_is_no_other_number_of_labels():
    with pytest.raises(ValueError, match="use 17"):
        label_set(18)


# --- WISA's forms


def test_a_released_record_is_read_whole(tmp_path: Path):
    record = read_one(tmp_path, released())
    assert record == ClipRecord(
        "3f2a.mp4",
        tmp_path / "3f2a.mp4",
        ("A heavy press crushes a dry clump of soil.",),
        ("collision", "deformation", "scattering"),
        duration=4.2,
        width=1280,
        text_boxes=0,
        law="Pressure deforms a body; past its strength it breaks.",
        category="deformation",
        quantities=Quantities((Range(1.2, 1.6),), Range(0, 5), Range(20, 30)),
    )


def test_a_training_record_is_read_by_its_file_and_id(tmp_path: Path):
    record = released(file="/data/0/3f2a.mp4", video_id=17, captions=["One.", "Two.", " "], duration="4.2")
    del record["video_name"]
    found = read_one(tmp_path, record)
    assert (found.id, found.video) == ("17", Path("/data/0/3f2a.mp4"))
    assert (found.captions, found.caption, found.duration) == (("One.", "Two."), "One.", 4.2)


def test_a_demo_record_is_a_prompt_without_a_video(tmp_path: Path):
    found = read_one(tmp_path, demo(), labels=WISA_29)
    assert found.video is None
    assert found.captions == ("A heavy press crushes soil.", "Soil is crushed.")
    assert found.category == "Deformation"
    assert set(found.labels) == {
        *("collision", "deformation", "no_obvious_thermodynamic_phenomenon", "scattering", "no_camera_motion"),
        *("object_decomposition_and_splitting", "gas_objects_appearance", "no_change"),
    }
    assert found.quantities == Quantities((Range(1.2, 1.6),), Range(0, 5), Range(20, 30))


def test_json_lines_and_both_kinds_of_csv_give_the_same_record(tmp_path: Path):
    expected = read_one(tmp_path, released())
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(released())}\n\n", encoding="utf-8")
    nested = {**released(), "physical_annotation": json.dumps(annotation())}
    dotted = {key: value for key, value in released().items() if key != "physical_annotation"}
    dotted |= {f"physical_annotation.{key}": value for key, value in annotation().items()}
    for name, row in (("nested.csv", nested), ("dotted.csv", dotted)):
        cells = ['"{}"'.format(str(value).replace('"', '""')) for value in row.values()]
        (tmp_path / name).write_text(f"\ufeff{','.join(row)}\r\n{','.join(cells)}\r\n", encoding="utf-8")
    for name in ("a.jsonl", "nested.csv", "dotted.csv"):
        reading = read_wisa(tmp_path / name)
        assert reading.records == (expected,), name


def test_the_dataset_folder_itself_can_be_named(tmp_path: Path):
    write_json(tmp_path / "data" / "wisa-80k.json", [released()])
    assert len(read_wisa(tmp_path).records) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no metadata"):
        read_wisa(tmp_path / "empty")


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("n0", "water: 0.998 g/cm³  \nice: 0.917 g/cm³  ", (Range(0.998, 0.998), Range(0.917, 0.917))),
        ("n0", "steel 304: 7,850 kg/m^3, h2o: 1.0-1.1 g/cm3", (Range(7.85, 7.85), Range(1.0, 1.1))),
        ("n1", "120 to 300 seconds", Range(120, 300)),
        ("n1", "1–2 minutes", Range(60, 120)),
        ("n2", "-10 to 0 degrees celsius", Range(-10, 0)),
        ("n2", "20°C to 25°C", Range(20, 25)),
        ("n2", "", None),
    ],
)
def test_numbers_are_read_from_text(tmp_path: Path, field: str, text: str, expected):
    quantities = read_one(tmp_path, demo(**{field: text})).quantities
    found = {"n0": quantities.densities, "n1": quantities.time, "n2": quantities.temperature}[field]
    if field == "n0":
        assert np.allclose(found, expected)
    else:
        assert found == expected


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"n1": "a short while"}, "n1 not understood: 'a short while'"),
        ({"n1": "less than 1 second"}, "n1 not understood: 'less than 1 second'"),
        ({"n2": "room temperature"}, "n2 not understood: 'room temperature'"),
        ({"n2": "30 to 20 degrees celsius"}, "n2 not understood: '30 to 20 degrees celsius'"),
        ({"n0": "water: 1.0 g/cm³\nair: very low"}, "n0 not understood: 'air: very low'"),
        ({"n0": "iron: 7.8×10^3 kg/m³"}, "n0 not understood: 'iron: 7.8×10^3 kg/m³'"),
        ({"quantify_n1": [5.0, None]}, "quantify_n1 not understood: [5.0, None]"),
        ({"quantify_n2": [20, 10**400]}, "quantify_n2 not understood: [20, 1000"),
        ({"n1": 5}, "n1 not understood: 5"),
        ({"duration": "long"}, "duration not understood: 'long'"),
        ({"duration": 10**400}, "duration not understood: 1000"),
        ({"width": float("nan")}, "width not understood: nan"),
        ({"text_bbox_num": True}, "text_bbox_num not understood: True"),
    ],
)
def test_an_unreadable_number_is_noted_and_the_record_kept(tmp_path: Path, change: dict, note: str):
    reading = read_wisa(write_json(tmp_path / "a.json", [demo(video_id="x", **change)]))
    assert len(reading.records) == 1
    (found,) = reading.notes
    assert found.text.startswith(note)
    assert found.examples == ("x",)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (released(captions=""), "no caption"),
        (released(captions=None), "no caption"),
        (released(captions=[" ", None]), "no caption"),
        ({}, "no caption"),
        (released(captions={"en": "a"}), "a caption is not text"),
        (released(captions="a \ud800"), "a caption holds control characters or half of a surrogate pair"),
        (released(captions="a \0"), "a caption holds control characters or half of a surrogate pair"),
        (released(physical_annotation=None), "no physical annotation"),
        (released(physical_annotation={}), "no physical annotation"),
        (released(physical_annotation=[1]), "physical_annotation is not an object"),
        (released(physical_annotation="{"), "physical_annotation is not JSON"),
        (released(video_name="a\ud800.mp4"), "its id holds control characters or half of a surrogate pair"),
        ("a text", "the row cannot be read"),
        (None, "the row cannot be read"),
    ],
)
def test_a_record_that_cannot_be_used_is_listed_with_its_reason(tmp_path: Path, record, reason: str):
    reading = read_wisa(write_json(tmp_path / "a.json", [record, released("good.mp4")]))
    assert [found.id for found in reading.records] == ["good.mp4"]
    assert reasons(reading) == [reason]
    assert reading.faults[0].where == "a.json item 1"
    assert reading.rows == 2


def test_equal_records_are_one_and_different_ones_of_an_id_are_none(tmp_path: Path):
    records = [released("a.mp4"), released("b.mp4"), released("a.mp4"), released("b.mp4", captions="Another.")]
    reading = read_wisa(write_json(tmp_path / "a.json", records))
    assert [record.id for record in reading.records] == ["a.mp4"]
    assert sorted(reasons(reading)) == ["an equal record was read before", *["different records share this id"] * 2]


def test_videos_are_found_by_name_among_the_shards(tmp_path: Path):
    for name in ("0/a.mp4", "1/b.mp4", "0/twice.mp4", "1/twice.mp4"):
        (tmp_path / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "videos" / name).touch()
    names = ("a.mp4", "b", "twice.mp4", "absent.mp4", "x" * 5000, "/old/machine/7/a.mp4")
    records = [released(name) for name in names] + [demo()]
    reading = read_wisa(write_json(tmp_path / "a.json", records), videos=tmp_path / "videos")
    assert {record.id: record.video.relative_to(tmp_path / "videos").as_posix() for record in reading.records} == {
        "a.mp4": "0/a.mp4",
        "b": "1/b.mp4",
        "/old/machine/7/a.mp4": "0/a.mp4",
    }
    assert reasons(reading) == [
        *("its video's name is not unique", "its video is not there", "its video is not there", "names no video")
    ]
    with pytest.raises(ValueError, match="is not a folder of videos"):
        read_wisa(tmp_path / "a.json", videos=tmp_path / "nowhere")


# --- captions


def test_long_and_many_lined_captions_are_cut_and_joined_and_counted(tmp_path: Path):
    lines, long, unbroken = "a line\n" * 1000, "word " * 2000, "x" * 9000
    records = [
        released("lines.mp4", captions=lines),
        released("long.mp4", captions=long),
        released("unbroken.mp4", captions=unbroken),
    ]
    reading = read_wisa(write_json(tmp_path / "a.json", records))
    captions = {record.id: record.caption for record in reading.records}
    assert captions["lines.mp4"].startswith("a line a line")
    assert all("\n" not in caption and len(caption) <= MAX_CAPTION for caption in captions.values())
    assert captions["long.mp4"] == ("word " * 820)[:MAX_CAPTION].rsplit(" ", 1)[0]
    assert captions["unbroken.mp4"] == "x" * MAX_CAPTION
    assert texts(reading.notes) == {
        "caption of several lines joined into one": 1,
        "caption cut after 4,096 characters": 3,
    }


def test_html_in_a_caption_stays_text(tmp_path: Path):
    caption = "<b>A ball</b> &amp; a <script>alert(1)</script>"
    assert read_one(tmp_path, released(captions=caption)).caption == caption


def test_the_rest_of_a_captions_list_survives_an_empty_one(tmp_path: Path):
    reading = read_wisa(write_json(tmp_path / "a.json", [released(captions=["", "One.", "One. "])]))
    assert reading.records[0].captions == ("One.",)
    assert texts(reading.notes) == {"empty caption beside others dropped": 1}


# --- files


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv"])
def test_a_file_that_is_not_utf8_is_refused_at_its_byte(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes("file,caption\na.mp4,caf\u00e9 noir\n".encode("cp1252"))
    with pytest.raises(ValueError, match="byte 0xe9 at offset 22; convert it .* iconv -f CP1252 -t UTF-8"):
        list(read_rows(tmp_path / name))
    (tmp_path / name).write_bytes("file,caption".encode("utf-16"))
    with pytest.raises(ValueError, match="is UTF-16, not UTF-8"):
        list(read_rows(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '[{"a": 1},', "is not JSON"),
        ("a.json", '{"a": 1}\n{"a": 2}', "one object a line is .jsonl"),
        ("a.json", '{"a": 1}', "holds an object, not a list of objects"),
        ("a.json", "[" * 200_000, "is not JSON"),
        ("a.csv", "", "is empty: its first line must name the columns"),
        ("a.csv", "file;caption\na;b\n", "is not separated by commas"),
        ("a.csv", "file,caption,file\n", "names a column twice: 'file'"),
        ("a.csv", 'file,caption\na,b\nc,"open\nd,e\n', "is not CSV from line 3 on: .* a quote left open"),
        ("a.txt", "", "must end in .json, .jsonl, .csv"),
    ],
)
def test_a_file_broken_as_a_whole_is_one_line(tmp_path: Path, name: str, text: str, message: str):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message) as caught:
        list(read_rows(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_broken_line_costs_only_itself(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"a": "x\u2028y"}\n{"a": \n[1]\n{"a": 2}\n', encoding="utf-8")
    rows = list(read_rows(tmp_path / "a.jsonl"))
    assert [row.fields for row in rows] == [{"a": "x\u2028y"}, None, None, {"a": 2}]
    assert rows[1].where == "a.jsonl line 2"
    assert "not JSON" in rows[1].problem
    assert rows[2].problem == "a list, not an object"
    (tmp_path / "a.csv").write_text('file,caption\na,"two\nlines"\nb,c,d\n\ne,f\n', encoding="utf-8")
    rows = list(read_rows(tmp_path / "a.csv"))
    assert [row.where for row in rows] == ["a.csv line 2", "a.csv line 4", "a.csv line 6"]
    assert rows[1].problem.startswith("3 cells under 2 columns")
    (tmp_path / "a.csv").write_text("file,caption,,\na,b,,\nc,d,e,\nf,g,,,,\nh,i,,,j\n", encoding="utf-8")
    rows = list(read_rows(tmp_path / "a.csv"))
    assert [row.fields for row in rows[:2]] == [{"file": "a", "caption": "b"}, {"file": "c", "caption": "d", "": "e"}]
    assert rows[2].fields == {"file": "f", "caption": "g"}
    assert rows[3].problem.startswith("5 cells under 4 columns")


def test_a_cell_longer_than_pythons_limit_is_read(tmp_path: Path):
    (tmp_path / "a.csv").write_text(f"caption\n{'x' * 200_000}\n", encoding="utf-8")
    assert len(next(read_rows(tmp_path / "a.csv")).fields["caption"]) == 200_000


# --- choosing


def clips(count: int = 100) -> list[ClipRecord]:
    labels = [(), ("melting",), ("melting", "reflection")]
    return [ClipRecord(f"{i:03}", None, ("a",), labels[i % 3]) for i in range(count)]


def test_the_subset_depends_on_the_seed_and_not_on_the_order():
    records = clips()
    subset = random_subset(records, 20, seed=5)
    random.Random(1).shuffle(records)
    assert random_subset(records, 20, seed=5) == subset
    assert random_subset(records, 20, seed=6) != subset
    assert set(subset) < set(random_subset(records, 30, seed=5))
    assert [record.id for record in subset] == sorted(record.id for record in subset)
    # Uniform: over many seeds each clip comes up about as often.
    counts = np.zeros(100)
    for seed in range(200):
        counts[[int(record.id) for record in random_subset(records, 20, seed)]] += 1
    assert counts.min() > 20
    assert counts.max() < 62


def test_the_subset_of_a_file_is_that_of_the_shuffled_file(tmp_path: Path):
    records = [released(f"{i:02}.mp4") for i in range(30)]
    first = random_subset(read_wisa(write_json(tmp_path / "a.json", records)).records, 7)
    random.Random(2).shuffle(records)
    assert random_subset(read_wisa(write_json(tmp_path / "a.json", records)).records, 7) == first


@pytest.mark.parametrize("count", [0, -1, 101])
def test_a_subset_larger_than_the_whole_is_refused(count: int):
    with pytest.raises(ValueError, match="from 100 clips: use 1 to 100"):
        random_subset(clips(), count)


def test_filters_count_what_each_removed_and_what_states_nothing():
    values = [(1.0, 640, 0), (4.0, 640, 0), (4.0, 1280, 3), (4.0, 1280, 1), (99.0, 1280, 0), (None, None, None)]
    records = [ClipRecord(str(i), None, ("a",), (), *value) for i, value in enumerate(values)]
    filters = Filters(min_duration=4.0, max_duration=10.0, min_width=720, max_text_boxes=1)
    kept, counts = apply_filters(records, filters)
    assert [record.id for record in kept] == ["3", "5"]
    assert [(count.name, count.removed, count.unstated) for count in counts] == [
        ("min_duration", 1, 1),
        ("max_duration", 1, 1),
        ("min_width", 1, 1),
        ("max_text_boxes", 1, 1),
    ]
    kept, counts = apply_filters(records, Filters(max_text_boxes=1, keep_unstated=False))
    assert [record.id for record in kept] == ["0", "1", "3", "4"]
    assert [(count.removed, count.unstated, count.unstated_kept) for count in counts] == [(1, 1, False)]
    assert apply_filters(records, Filters()) == (tuple(records), ())


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"min_duration": -1}, "min_duration=-1 must be"),
        ({"min_width": float("nan")}, "min_width=nan must be"),
        ({"min_duration": 5, "max_duration": 3}, "swap them"),
    ],
)
def test_filters_that_make_no_sense_are_refused(filters: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Filters(**filters)


# --- a folder of clips


def write_folder(folder: Path, table: str, videos: tuple = ("a.mp4", "sub/b.mp4"), name: str = "captions.csv") -> Path:
    for video in videos:
        (folder / video).parent.mkdir(parents=True, exist_ok=True)
        (folder / video).touch()
    (folder / name).write_text(table, encoding="utf-8")
    return folder


def test_a_folder_of_clips_gives_the_same_records(tmp_path: Path):
    table = 'file,caption,phenomena,duration\na.mp4,"Ice, melting","melting, Rigid Body Motion",3\nsub/b.mp4,A wall,,\n'
    reading = read_folder(write_folder(tmp_path, table))
    assert reading.records == (
        ClipRecord("a.mp4", tmp_path / "a.mp4", ("Ice, melting",), ("rigid_body_motion", "melting"), duration=3),
        ClipRecord("sub/b.mp4", tmp_path / "sub/b.mp4", ("A wall",), ()),
    )
    assert reading.faults == reading.notes == reading.unnamed_videos == ()
    assert count_labels(reading.records, WISA_17)["melting"] == 1
    assert read_folder(tmp_path / "captions.csv") == reading


def test_a_folder_with_json_lines_and_without_labels(tmp_path: Path):
    lines = '{"file": "a.mp4", "caption": "One"}\n{"file": "sub/b.mp4", "caption": "Two"}\n'
    reading = read_folder(write_folder(tmp_path, lines, name="c.jsonl"))
    assert [record.labels for record in reading.records] == [None, None]
    (tmp_path / "c.jsonl").write_text('{"file": "a.mp4", "caption": "One", "phenomena": ["melting", "magic"]}\n')
    reading = read_folder(tmp_path)
    assert reading.records[0].labels == ("melting",)
    assert texts(reading.label_report.not_understood) == {"magic": 1}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,captions\na.mp4,b\n", "has no column 'caption', only file, captions: rename 'captions'"),
        ("File,caption\na.mp4,b\n", "has no column 'file', only File, caption: rename 'File'"),
        ("video,caption\na.mp4,b\n", "has no column 'file', only video, caption: add it"),
        ("file,caption\n", "has no row that can be read"),
    ],
)
def test_a_wrong_header_is_refused_with_the_cure(tmp_path: Path, table: str, message: str):
    with pytest.raises(ValueError, match=message):
        read_folder(write_folder(tmp_path, table))


def test_rows_of_a_folder_that_cannot_be_used_are_listed(tmp_path: Path):
    table = (
        "file,caption,mood\na.mp4,One,x\nabsent.mp4,Two,x\nsub/b.mp4,Three,x\n./sub/b.mp4,Four,x\n"
        "../a.mp4,Five,x\n/etc/passwd,Six,x\n,Seven,x\nc.mp4,,x\na.mp4\n"
    )
    reading = read_folder(write_folder(tmp_path, table, ("a.mp4", "sub/b.mp4", "c.mp4", "d.webm", "notes.txt")))
    assert [record.id for record in reading.records] == ["a.mp4"]
    found = {(fault.where.removeprefix("captions.csv "), fault.reason) for fault in reading.faults}
    assert found == {
        ("line 3", "its video is not there"),
        ("line 4", "several rows name this video"),
        ("line 5", "several rows name this video"),
        ("line 6", "its video lies outside the folder"),
        ("line 7", "its video lies outside the folder"),
        ("line 8", "names no video"),
        ("line 9", "no caption"),
        ("line 10", "the row cannot be read"),
    }
    assert reading.unnamed_videos == (tmp_path / "d.webm",)
    assert texts(reading.notes) == {"column 'mood' not read": 1}


def test_a_folder_needs_one_table(tmp_path: Path):
    with pytest.raises(ValueError, match="add captions.csv with the columns file,caption"):
        read_folder(tmp_path)
    write_folder(tmp_path, "file,caption\na.mp4,b\n")
    (tmp_path / "other.csv").touch()
    with pytest.raises(ValueError, match="holds captions.csv, other.csv: name the one to read"):
        read_folder(tmp_path)
    with pytest.raises(ValueError, match="neither a folder nor a table"):
        read_folder(tmp_path / "a.mp4")


# --- frames


def test_the_frames_taken_are_those_on_show_at_the_times_asked_for(tmp_path: Path):
    path = tmp_path / "a.mp4"
    write_video(path, clip(12), 12)
    assert greys(sample_frames(path, 12, 12, 32, 48)) == list(range(12))
    assert greys(sample_frames(path, 3, 4, 32, 48)) == [0, 3, 6]
    assert greys(sample_frames(path, 6, 24, 32, 48)) == [0, 0, 1, 1, 2, 2]
    assert greys(sample_frames(path, 4, 12, 32, 48, start=0.5)) == [6, 7, 8, 9]
    assert greys(sample_frames(path, 24, 24, 32, 48))[-2:] == [11, 11]


def test_a_rate_that_containers_round_still_gives_every_frame_once(tmp_path: Path):
    path = tmp_path / "a.mkv"
    write_video(tmp_path / "a.mp4", clip(12), 29.97)
    with av.open(str(tmp_path / "a.mp4")) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    assert greys(sample_frames(path, 12, 29.97, 32, 48)) == list(range(12))


@pytest.mark.parametrize(("height", "width"), [(32, 48), (16, 16), (64, 48), (24, 96), (17, 23)])
def test_frames_are_cut_around_their_middle_and_not_stretched(tmp_path: Path, height: int, width: int):
    write_video(tmp_path / "a.mp4", clip(2, 64, 96), 8, crf=0)
    frames = sample_frames(tmp_path / "a.mp4", 2, 8, height, width)
    assert (frames.shape, frames.dtype) == ((2, height, width, 3), np.uint8)
    red = frames[0, :, :, 0] > 110
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    assert abs(rows.mean() - (height - 1) / 2) <= 1
    assert abs(columns.mean() - (width - 1) / 2) <= 1
    assert abs(len(rows) - len(columns)) <= 1, "a square stays one"


def test_only_what_is_needed_is_decoded(tmp_path: Path):
    """The end of the file may be missing if the frames asked for come before it."""
    path = tmp_path / "a.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (60, 64, 64, 3), np.uint8)
    write_video(path, noise, 10)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert sample_frames(path, 5, 10, 64, 64).shape == (5, 64, 64, 3)
    with pytest.raises(UnreadableClip, match=r"(is cut off after|breaks off).* 50 frames at 10 a second") as caught:
        sample_frames(path, 50, 10, 64, 64)
    assert caught.value.path == path


def write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_playlist(path: Path) -> None:
    write_video(path.with_name("other.mp4"), clip(9), 8)
    path.write_text("ffconcat version 1.0\nfile other.mp4\n")


def write_no_frames(path: Path) -> None:
    with av.open(str(path), "w", options={"movflags": "empty_moov"}) as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        container.start_encoding()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is not a file"),
        (lambda path: path.touch(), "is empty"),
        (lambda path: path.write_text("a text under a video's name\n" * 50), "cannot be read as a video"),
        (write_playlist, "cannot be read as a video"),
        (write_sound, "has no video stream"),
        (write_no_frames, "holds no frames"),
        (
            lambda path: write_video(path, clip(4), 8),
            "is too short, 0.50 s; 9 frames at 8 a second from 0 s need 1.00",
        ),
    ],
    ids=["missing", "folder", "empty", "text", "playlist", "sound", "no-frames", "short"],
)
def test_a_file_that_gives_no_clip_is_one_error_of_one_line(tmp_path: Path, make, message: str):
    path = tmp_path / "x.mp4"
    make(path)
    with pytest.raises(UnreadableClip, match=message) as caught:
        sample_frames(path, 9, 8, 32, 32)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_start_behind_the_end_is_too_short(tmp_path: Path):
    write_video(tmp_path / "a.mp4", clip(8), 8)
    with pytest.raises(UnreadableClip, match="is too short, 1.00 s; 2 frames at 8 a second from 30 s"):
        sample_frames(tmp_path / "a.mp4", 2, 8, 32, 32, start=30)


@pytest.mark.parametrize("change", [{"frames": 0}, {"fps": 0}, {"fps": float("nan")}, {"height": 0}, {"start": -1}])
def test_sampling_nonsense_is_refused_before_the_file_is_opened(tmp_path: Path, change: dict):
    with pytest.raises(ValueError, match="must be") as caught:
        sample_frames(**{"path": tmp_path / "a.mp4", "frames": 2, "fps": 8, "height": 8, "width": 8, **change})
    assert not isinstance(caught.value, UnreadableClip)


def test_frames_of_a_record_can_be_read(tmp_path: Path):
    write_folder(tmp_path, "file,caption\na.mp4,Grey\nb.mp4,Not a video\n", ("b.mp4",))
    write_video(tmp_path / "a.mp4", clip(), 8)
    good, bad = read_folder(tmp_path).records
    assert sample_frames(good.video, 4, 8, 32, 48).shape == (4, 32, 48, 3)
    with pytest.raises(UnreadableClip):
        sample_frames(bad.video, 4, 8, 32, 48)


# --- the command


def test_the_report_names_everything(tmp_path: Path, capsys):
    records = [released(f"{i:02}.mp4", duration=i) for i in range(10)]
    records.append(released("odd.mp4", duration=None, physical_annotation=annotation(q0="collision, \x1b[31mwobble")))
    records.append(released("mute.mp4", captions=" "))
    path = write_json(tmp_path / "wisa-80k.json", records)
    assert main(["data", "report", str(path), "--min-duration", "3"]) == 0
    out = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[:4] == [
        "rows 12",
        "records 11",
        "filter --min-duration 3: 3 removed, 1 do not state it, kept",
        "clips 8",
    ]
    assert f"collision 8 {'#' * 40}" in lines
    assert f"deformation 7 {'#' * 35}" in lines
    assert "melting 0" in lines
    assert "q0: [31mwobble 1 in odd.mp4" in lines, "what a terminal would obey is taken out"
    assert "no caption 1" in lines
    assert "\x1b" not in out


def test_the_report_as_json_holds_every_fault_and_the_sample(tmp_path: Path, capsys):
    records = [released(f"{i:02}.mp4") for i in range(10)] + [{}, {}]
    path = write_json(tmp_path / "a.json", records)
    assert main(["data", "report", str(path), "--json", "--labels", "29", "--sample", "4", "--seed", "2"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["rows"], report["records"], report["clips"], len(report["faults"])) == (12, 10, 4, 2)
    assert len(report["labels"]) == 29
    assert report["labels"]["no_camera_motion"] == 4


def test_the_report_of_a_folder(tmp_path: Path, capsys):
    write_folder(tmp_path, "file,caption\na.mp4,One\n")
    assert main(["data", "report", str(tmp_path), "--format", "folder"]) == 0
    out = capsys.readouterr().out
    assert "nobody said" in out
    assert "videos that no row names: 1, such as b.mp4" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.json"], "No such file"),
        (["absent", "--format", "folder"], "neither a folder nor a table"),
        (["a.json", "--sample", "5"], "a sample of 5 is not to be had from 1 clips"),
        (["a.json", "--min-duration", "-1"], "min_duration=-1.0 must be"),
        ([".", "--format", "folder", "--videos", "."], "leave it out"),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(tmp_path: Path, monkeypatch, capsys, arguments: list, message: str):
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "a.json", [released()])
    assert main(["data", "report", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_reading_data_needs_no_torch():
    code = "import sys, prophy.data.cli; print({'torch', 'diffusers', 'transformers'} & {*sys.modules} or 'none')"
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "none"
