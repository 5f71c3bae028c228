"""What a training says of itself is read as one type: what is missing or damaged is one line that names the cure."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from small_training import RECIPE, run
from torch import nn

from prophy.evaluation import cli
from prophy.training.about import RUN_FILE, About, BaseConfig, Transformer
from prophy.training.checkpoints import load_checkpoint
from prophy.training.fit import fit
from prophy.training.log import LOG_FILE, read_lines
from prophy.training.optim import OneCycleAdamW
from prophy.training.publish import publish
from prophy.training.run_folder import CHECKPOINT, TrainingRun

ABOUT = About(
    recipe_name="tiny",
    base="somebody/model",
    base_config=BaseConfig("UniPCMultistepScheduler", {"flow_shift": 3.0}, (0.1, 1.5)),
    recipe={"steps": 20, "batch": 4},
    data="worlds 1",
    processes=2,
    transformer=Transformer("WanTransformer3DModel", {"num_layers": 3}),
    branch={"family": "wan"},
    trained_parameters=7,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("trained") / "run", replace(RECIPE, steps=2), name="tiny", base="somebody/model")


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copied"))


def change(folder: Path, **fields) -> None:
    """Of run.json; None takes a field away."""
    document = json.loads((folder / RUN_FILE).read_text()) | fields
    (folder / RUN_FILE).write_text(json.dumps({name: value for name, value in document.items() if value is not None}))


def refusal(error: pytest.ExceptionInfo) -> str:
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


def test_what_is_written_is_read_and_what_other_releases_note_is_left_out(tmp_path: Path):
    ABOUT.write(tmp_path)
    document = json.loads((tmp_path / RUN_FILE).read_text())
    assert document["transformer"] == {"class": "WanTransformer3DModel", "config": {"num_layers": 3}}
    assert About.read(tmp_path) == ABOUT
    change(tmp_path, colour="red")
    assert About.read(tmp_path) == ABOUT


def test_what_a_run_of_before_wrote_is_read(tmp_path: Path):
    """The fields of runs that were begun before there was a type: of a transformer, and of a small model."""
    ABOUT.write(tmp_path)
    before = json.loads((tmp_path / RUN_FILE).read_text())
    small = {name: before[name] for name in ("recipe_name", "base", "recipe", "processes", "trained_parameters")}
    (tmp_path / RUN_FILE).write_text(json.dumps(small))
    about = About.read(tmp_path)
    assert (about.transformer, about.branch, about.data, about.steps, about.batch) == (None, None, "", 20, 4)
    change(tmp_path, recipe={"steps": 20})
    assert About.read(tmp_path).batch is None


@pytest.mark.parametrize("name", ["recipe_name", "base", "recipe", "processes", "trained_parameters"])
def test_a_field_that_is_missing_or_of_another_kind_is_named(tmp_path: Path, name: str):
    for value in (None, [3]):
        ABOUT.write(tmp_path)
        change(tmp_path, **{name: value})
        with pytest.raises(ValueError, match=f"run.json of {tmp_path.name} is damaged .*: train into a new") as error:
            About.read(tmp_path)
        assert name in refusal(error)
    with pytest.raises(ValueError, match=r"No such file or directory"):
        About.read(tmp_path / "absent")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"trained_parameters": None}, "trained_parameters"),
        ({"base": None}, "base"),
        ({"transformer": {"config": {}}}, "transformer"),
        ({"transformer": None}, "trained no transformer: only backbones and branches are published"),
        ({"branch": {"family": "wan"}}, "is missing"),
        ({"transformer": {"class": "WanTransformer3DModel", "config": {"num_layers": -1}}}, "num_layers"),
    ],
)
def test_a_run_whose_description_is_damaged_is_not_published(copied: Path, tmp_path: Path, fields: dict, said: str):
    change(copied, **fields)
    with pytest.raises(ValueError, match=said) as error:
        publish(copied, tmp_path / "model")
    refusal(error)
    assert not (tmp_path / "model").exists()


def test_a_log_is_read_whole_or_its_damage_is_named(copied: Path, tmp_path: Path):
    whole = (copied / LOG_FILE).read_text()
    lines = read_lines(copied)
    (copied / LOG_FILE).write_text(whole + '{"kind": "train"')
    assert read_lines(copied) == lines, "a kill cut the last one short"
    for bad in ("{}", "[]", '{"kind": "train", "step": 2}', "no JSON"):
        (copied / LOG_FILE).write_text(f"{bad}\n{whole}")
        with pytest.raises(ValueError, match=r"line 1 of log.jsonl is damaged: delete it") as error:
            publish(copied, tmp_path / "model")
        refusal(error)
        assert TrainingRun(copied).look().faults[0].endswith("Only what stands before it is shown")
    (copied / LOG_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no log.jsonl: give a folder that prophy train wrote"):
        publish(copied, tmp_path / "model")


def test_a_run_without_a_step_is_no_row_of_an_ablation(copied: Path, tmp_path: Path):
    from made_results import recognition_result

    recognition_result().save(copied)
    command = ["ablation", f"full={copied}", "--work", str(tmp_path / "table")]
    cli.main(command)
    (copied / LOG_FILE).write_text("")
    with pytest.raises(ValueError, match="holds no step: train it further, or leave it out") as error:
        cli.main(command)
    refusal(error)
    change(copied, trained_parameters=None)
    with pytest.raises(ValueError, match=r"run.json of copied is damaged \(trained_parameters: "):
        cli.main(command)


@dataclass(frozen=True)
class _Recipe:
    batch: int = 1


def test_the_checkpoint_of_another_kind_of_training_is_refused_by_what_it_lacks(copied: Path, tmp_path: Path):
    model = nn.Linear(2, 1)
    optimiser = OneCycleAdamW(list(model.parameters()), 1e-3, steps=1, warm_up=0.5, weight_decay=0.0)
    named = {"steps": 1, "name": "net", "recipe": _Recipe(), "folder": tmp_path / "net"}
    fit(model, lambda _: model(torch.ones(1, 2)).sum(), optimiser, **named)
    about = About.read(tmp_path / "net")
    assert (about.recipe_name, about.steps, about.batch, about.transformer) == ("net", 1, 1, None)
    with pytest.raises(ValueError, match="trained no transformer"):
        publish(tmp_path / "net", tmp_path / "model")
    with pytest.raises(ValueError, match=r"another kind of training \(it lacks weights\): choose another folder"):
        load_checkpoint(tmp_path / "net" / CHECKPOINT, ("model", "weights"))
    shutil.copytree(tmp_path / "net" / CHECKPOINT, copied / CHECKPOINT, dirs_exist_ok=True)
    with pytest.raises(ValueError, match=r"another kind of training \(it lacks still\)") as error:
        publish(copied, tmp_path / "model")
    refusal(error)
