"""Results save and load themselves: the same comes back, files of release 0.1.0 open, everything else is refused."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from datetime import datetime
from importlib import import_module
from importlib.metadata import Distribution, PackageNotFoundError, version
from pathlib import Path
from pkgutil import iter_modules

import pytest
from made_results import EVERY_RESULT, correlation_result, laws_result, recognition_result, vbench_result

from prophy.assets import assets_dir
from prophy.evaluation import results
from prophy.evaluation.report.format import in_words
from prophy.evaluation.report.readers import KINDS, body_of, read_result
from prophy.evaluation.results import Interval, Result, running_command
from prophy.evaluation.results.documents import as_json
from prophy.evaluation.results.laws import LawsResult
from prophy.evaluation.results.localisation import LocalisationResult
from prophy.evaluation.results.recognition import RecognitionResult
from prophy.evaluation.results.vbench import VBenchResult

SHIPPED = sorted((assets_dir() / "evidence" / "evaluation").glob("*.json"))


def document_of(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.mark.parametrize("make", EVERY_RESULT)
def test_what_is_loaded_is_what_was_saved(tmp_path: Path, make):
    result = make()
    saved = result.save(tmp_path)
    loaded = type(result).load(tmp_path, saved.made_by.name)
    assert as_json(loaded) == as_json(saved), "as JSON: a NaN equals nothing"
    assert loaded.made_by == saved.made_by
    assert as_json(replace(loaded, made_by=result.made_by)) == as_json(result)
    assert in_words(body_of(read_result(tmp_path / "evaluation" / f"{saved.made_by.name}.json")))


def test_a_clone_that_was_never_installed_writes_results_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """``python -m prophy evaluate …`` there must not end, after an hour of measuring, for want of a release."""
    monkeypatch.setattr(Distribution, "discover", lambda **asked: iter(()))
    with pytest.raises(PackageNotFoundError):
        version("prophy")
    saved = EVERY_RESULT[0]().save(tmp_path)
    assert saved.made_by.release is None
    assert type(saved).load(tmp_path, saved.made_by.name).made_by == saved.made_by
    assert in_words(body_of(read_result(tmp_path / "evaluation" / f"{saved.made_by.name}.json")))


def test_every_result_is_registered_and_made_here():
    modules = [import_module(f"{results.__name__}.{one.name}") for one in iter_modules(results.__path__)]
    classes = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Result) and value is not Result
    }
    assert classes == {kind.result for kind in KINDS.values()} == {type(make()) for make in EVERY_RESULT}


def test_a_result_says_what_made_it_and_when(tmp_path: Path):
    running = running_command.set("prophy evaluate laws --clips 3")
    try:
        made_by = laws_result().save(tmp_path).made_by
    finally:
        running_command.reset(running)
    assert document_of(tmp_path / "evaluation" / "laws.json")["made_by"] == vars(made_by)
    assert (made_by.kind, made_by.version, made_by.name) == ("laws", 1, "laws")
    assert made_by.command == "prophy evaluate laws --clips 3"
    assert datetime.fromisoformat(made_by.date).tzinfo is not None


#: the only fields that came after 0.1.0: the worlds, which then were always the same
LATER = {"size", "fps", "cell", "phenomena", "grammar"}


def kept(after: object, before: object) -> object:
    """``after`` without the fields in :data:`LATER` that ``before`` does not have."""
    if isinstance(after, dict) and isinstance(before, dict):
        return {key: kept(after[key], before.get(key)) for key in after if key in before or key not in LATER}
    return after


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_release_0_1_0_wrote_loads_and_is_written_alike(tmp_path: Path, path: Path):
    result = read_result(path)
    assert result.made_by.name == path.stem
    before, after = document_of(path), json.loads(as_json(result))
    before.pop("made_by", None)
    after.pop("made_by")
    assert kept(after, before) == before, "nothing of it is lost or moved; fields that came later have defaults"


def test_the_benchmarks_results_of_release_0_1_0_load(tmp_path: Path):
    """None of these is shipped, so their files stand here as they were written."""
    part = {"value": 0.5, "low": 0.0, "high": 1.0, "n": 2}
    nothing = {"value": None, "low": None, "high": None, "n": 0}
    protocol = {"benchmark": "videophy2", "prompts_sha256": "d", "text_field": "caption", "prompts": 2}
    protocol |= {"model_sha256": "e", "branch": True, "seed": 0, "steps": 20, "guidance": 4.0}
    protocol |= {"frames": 17, "height": 64, "width": 64, "fps": 16.0}
    made_by = {"command": "prophy evaluate videophy2 score", "release": "0.1.0"}
    subset = {"pc": part, "sa": part, "joint": part, "unscored_pc": 0, "unscored_sa": 0, "prompts": 2}
    differences = {"sa": part, "pc": part, "joint": part}
    documents = {
        "videophy2-on": {
            "made_by": made_by,
            "everything": subset,
            "hard": {**subset, "pc": nothing, "sa": nothing, "joint": nothing, "prompts": 0},
            "judge": "VideoPhy-2-AutoEval",
            "protocol": protocol,
            "outputs_sha256": ["1", "2"],
            "scores": {"a": [5, 4], "b": [None, 2]},
        },
        "videophy2-on-minus-off": {
            "made_by": made_by,
            "everything": differences,
            "hard": differences,
            "model_sha256": ["a", "b"],
            "branch": [True, False],
        },
    }
    for name, document in documents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    scored, compared = (read_result(tmp_path / f"{name}.json") for name in documents)
    assert scored.scores == {"a": (5, 4), "b": (None, 2)}
    assert scored.hard.joint.n == 0
    assert "VideoPhy2: on" in in_words(body_of(scored))
    assert compared.weights == {"first": "a", "second": "b"}
    assert "VideoPhy2, paired: on-minus-off" in in_words(body_of(compared))


def test_a_file_is_read_as_what_it_says_it_is_whatever_its_name(tmp_path: Path):
    written = laws_result().write(tmp_path / "videophy2-a-minus-b.json")
    assert read_result(tmp_path / "videophy2-a-minus-b.json") == written
    with pytest.raises(ValueError, match="it holds laws"):
        RecognitionResult.read(tmp_path / "videophy2-a-minus-b.json")


def put(at: str, value: object):
    """An edit of a document: what stands ``at`` a path of keys becomes ``value``; None removes it."""

    def edit(document: dict) -> None:
        *path, last = at.split("/")
        for key in path:
            document = document[int(key) if isinstance(document, list) else key]
        if value is None:
            del document[last]
        else:
            document[last] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (put("steps", None), "steps: "),
        (put("guess", 1), "guess: "),
        (put("steps", 20.5), "steps: "),
        (put("steps", "20"), "steps: "),
        (put("steps", True), "steps: "),
        (put("steps", -1), "steps: "),
        (put("guidance", float("nan")), "guidance: "),
        (put("score/single/value", float("nan")), "score.single.value: "),
        (put("score/single/high", float("inf")), "score.single.high: "),
        (put("score/single/n", None), "score.single.n: "),
        (put("score/single/note", "x"), "score.single.note: "),
        (put("score/recall/telekinesis", {"value": 1, "low": 1, "high": 1, "n": 1}), "unknown phenomenon"),
        (put("verdicts/0/asked", ["telekinesis"]), "verdicts.0.asked.0: unknown phenomenon"),
        (put("made_by/command", 3), "made_by.command: "),
        (put("made_by/version", 2), "its version is 2, this release reads 1"),
    ],
)
def test_a_wrong_field_is_refused_in_one_line_with_file_field_and_cure(tmp_path: Path, edit, named: str):
    recognition_result().save(tmp_path)
    path = tmp_path / "evaluation" / "recognition.json"
    document = document_of(path)
    edit(document)
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=re.escape(named)) as refused:
        RecognitionResult.load(tmp_path)
    message = str(refused.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{path} is damaged or of another release (")
    assert message.endswith("measure it again with `prophy evaluate recognition`")


def test_parts_that_contradict_each_other_are_refused(tmp_path: Path):
    """Whoever has a result need not check these again."""
    laws = laws_result()
    short = {**laws.scores["test"], "LoRA": replace(laws.scores["test"]["real"], by_law={})}
    contradictions = (
        (replace, laws, {"scores": {}}, "no columns of the splits"),
        (replace, laws, {"scores": {"test": short}}, "laws of the columns of test"),
        (replace, laws, {"scores": {**laws.scores, "combinations": short}}, "columns of the splits: 'LoRA'"),
        (replace, correlation_result(), {"labels": ((1.0,),)}, "labels are no table"),
        (replace, vbench_result(), {"raw": {"a": 1.0}}, "dimensions"),
    )
    for change, result, fields, said in contradictions:
        with pytest.raises(ValueError, match=re.escape(said)):
            change(result, **fields)
    with pytest.raises(ValueError, match="no bounds"):
        Interval(0.5, float("nan"), 1.0, 3)


def test_a_result_that_could_not_be_read_back_is_not_written(tmp_path: Path):
    vbench_result().save(tmp_path)
    path = tmp_path / "evaluation" / "vbench.json"
    before = path.read_bytes()
    broken = VBenchResult(float("nan"), {"a": 1.0}, {"a": 1.0}, 3)
    with pytest.raises(ValueError, match=r"vbench\.json was not written: quality"):
        broken.save(tmp_path)
    with pytest.raises(TypeError, match="does not belong in a result"):
        replace(broken, quality=object()).save(tmp_path)
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["vbench.json"]


def test_a_missing_result_names_the_command_that_measures_it(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"laws\.json is missing: run `prophy evaluate laws` first"):
        LawsResult.load(tmp_path)


def places(node: object) -> list[tuple[object, object]]:
    """Every container of a document with one of its keys."""
    keys = node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    return [pair for key in keys for pair in ((node, key), *places(node[key]))]


def complaint(path: Path) -> str:
    """Why a file cannot be shown; empty where it can."""
    try:
        return "" if in_words(body_of(read_result(path))) else "nothing is shown"
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("make", EVERY_RESULT)
def test_whatever_is_damaged_a_result_opens_or_is_refused_in_one_line(tmp_path: Path, make):
    """No damage reaches the code that shows results: what opens can be shown."""
    result = make()
    path = tmp_path / f"{result.kind}.json"
    result.write(path)
    text, rng, complaints = path.read_text(), random.Random(0), []
    for _ in range(60):
        document = json.loads(text)
        node, key = rng.choice(places(document))
        damage = rng.choice(["remove", None, {}, [], -1, 0.5, "x", True, [[]], {"x": 1}])
        if damage == "remove":
            del node[key]
        else:
            node[key] = damage
        path.write_text(json.dumps(document))
        complaints.append(complaint(path))
    refused = list(filter(None, complaints))
    assert len(refused) > 20
    assert all(line.startswith(f"{path} is damaged") and len(line.splitlines()) == 1 for line in refused)


def test_what_is_shipped_says_where_it_was_measured():
    shipped = LocalisationResult.load(assets_dir() / "evidence")
    assert [level.noise for level in shipped.levels] == [0.2, 0.5, 0.8, 0.95]
    assert shipped.weights == {"model": shipped.model_sha256}
