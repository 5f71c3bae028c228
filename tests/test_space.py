"""What a Space is made of: the README's head, a GPU that is lent for one clip at a time, and where runs go there."""

import contextvars
import pickle
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import gradio
import pytest
from huggingface_hub import SpaceCard
from packaging.specifiers import SpecifierSet

from prophy.catalogue.published import PUBLISHED
from prophy.generation.generate import Generation, GenerationSettings, StepPreview, stream
from prophy.ui import cli
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.errors import EngineError
from prophy.ui.engine.events import Finished
from prophy.ui.engine.gpu import VISITOR_SECONDS, on_gpu
from prophy.ui.engine.models import ModelSource
from prophy.ui.engine.request import Request

ROOT = Path(__file__).resolve().parents[1]
PROMPT = "a red ball bounces"

# --- the README's head ------------------------------------------------------------------------------------------------

#: As the hub's reference of a Space's configuration lists them.
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
FIELDS = {
    *("title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "suggested_hardware"),
    *("app_file", "license", "tags", "models", "short_description", "thumbnail"),
}
PYTHONS = {"3.10", "3.12"}  # of ZeroGPU


@pytest.fixture(scope="module")
def head() -> dict:
    return SpaceCard.load(ROOT / "README.md").data.to_dict()


def test_the_head_has_fields_that_a_space_reads_and_no_others(head: dict):
    assert set(head) <= FIELDS
    assert FIELDS - set(head) <= {"thumbnail"}, "an address of the published Space: docs/models.md"
    assert {head["colorFrom"], head["colorTo"]} <= COLOURS
    assert len(head["short_description"]) <= 60
    assert head["suggested_hardware"] == "cpu-basic", "the embedded model wants no more"
    assert all(re.fullmatch("[a-z0-9-]+", tag) for tag in head["tags"])
    assert head["license"] == "apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_the_head_asks_for_the_gradio_and_a_python_that_this_is_tested_with(head: dict):
    assert head["sdk"] == "gradio"
    (pinned,) = re.findall(r"^gradio(.*)$", (ROOT / "requirements.txt").read_text(), re.M)
    assert head["sdk_version"] in SpecifierSet(pinned)
    assert head["sdk_version"].split(".")[:2] == gradio.__version__.split(".")[:2]
    assert head["python_version"] in PYTHONS
    assert f"Python :: {head['python_version']}" in (ROOT / "pyproject.toml").read_text()


def test_the_head_names_the_file_that_opens_the_app_and_the_models_that_it_can_open(head: dict, monkeypatch):
    called = []
    monkeypatch.setattr("prophy.cli.main", called.append)
    monkeypatch.setattr(sys, "argv", ["app.py", "--max-steps", "20"])
    code = compile((ROOT / head["app_file"]).read_text(), head["app_file"], "exec")
    with pytest.raises(SystemExit):
        exec(code, {"__name__": "__main__"})
    assert called == [["app", "--max-steps", "20"]]
    ours = {model.repo for model in PUBLISHED.values() if model.repo.startswith(("Wan-AI/", "THUDM/"))}
    assert set(head["models"]) == ours, "other tests may have made further families known"


# --- a lent GPU -------------------------------------------------------------------------------------------------------


class Host:
    """What the host's package does, in this process: it asks for the time, and of an error hands over its class."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.visitors: list[str] = []
        self.refuses = ""

    def gpu(self, duration):
        def decorated(work):
            def lent(*given, **named) -> Iterator:
                self.asked.append(duration(*given, **named))
                self.visitors.append(VISITOR.get("nobody"))
                if self.refuses:
                    raise gradio.Error(self.refuses)
                given, named = pickle.loads(pickle.dumps((given, named)))  # as they travel
                try:
                    for event in work(*given, **named):
                        yield pickle.loads(pickle.dumps(event))
                except Exception as error:
                    raise gradio.Error(type(error).__name__) from None

            return lent

        return decorated


VISITOR: contextvars.ContextVar[str] = contextvars.ContextVar("visitor")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    host = Host()
    package = types.ModuleType("spaces")
    package.GPU = host.gpu
    monkeypatch.setitem(sys.modules, "spaces", package)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    return host


def test_a_gpu_is_asked_for_only_where_one_is_lent(host: Host, monkeypatch: pytest.MonkeyPatch):
    def count(n: int) -> Iterator[int]:
        yield from range(n)

    assert list(on_gpu(count, lambda n: 10 * n)(3)) == [0, 1, 2]
    assert host.asked == [30]
    monkeypatch.delenv("SPACES_ZERO_GPU")
    assert on_gpu(count, int) is count


def test_what_the_work_refuses_is_said_in_its_own_words_and_what_the_host_refuses_in_the_hosts(host: Host):
    def refuse(message: str) -> Iterator[int]:
        yield 1
        raise ValueError(message)

    lent = on_gpu(refuse, lambda _: 5)
    with pytest.raises(EngineError, match="^lower the steps$"):
        list(lent("lower the steps"))
    host.refuses = "You have exceeded your ZeroGPU quota (30s requested vs. 2s left)"
    with pytest.raises(EngineError, match="no GPU did this: You have exceeded your ZeroGPU quota"):
        list(lent("anything"))


def test_closing_the_iterator_ends_the_work(host: Host):
    ended = []

    def endless() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            ended.append(True)

    events = on_gpu(endless, lambda: 5)()
    assert next(events) == 1
    events.close()
    assert ended == [True]


def test_a_clip_is_made_on_a_lent_gpu_in_the_name_of_the_visitor(host: Host, tiny_pipeline, tmp_path: Path):
    opened = []
    engine = Engine(
        runs=tmp_path / "runs",
        gallery=tmp_path / "none",
        open_pipeline=lambda card, profile: opened.append((card.name, profile)) or tiny_pipeline,
    )
    seconds = engine.open_for_lending()
    assert opened == [("prophy-tiny", "all")], "nothing may be opened once the page is served"
    assert seconds <= VISITOR_SECONDS / 4, "the default clip leaves a visitor without an account some more of them"
    VISITOR.set("me")
    request = Request(PROMPT, steps=2)
    *_, finished = engine.generate(request, "page", "a" * 64)
    assert isinstance(finished, Finished)
    assert finished.run.trace() is not None
    assert host.visitors == ["me"], "in the thread of the generation the host did not find whose quota to use"
    assert 0 < host.asked[0] <= seconds
    assert opened == [("prophy-tiny", "all")]
    assert engine.same_run(request, "a" * 64) is None
    with pytest.raises(EngineError, match="a lent GPU holds the whole model: use the memory profile all"):
        engine.check(Request(PROMPT, profile="group"))


def test_what_a_lent_gpu_cannot_hold_is_refused_at_start(host: Host, tmp_path: Path):
    with pytest.raises(ValueError, match="a lent GPU holds one model, in the profile all: give one --model"):
        Engine(profile="group", runs=tmp_path)
    with pytest.raises(ValueError, match="two models|holds one model"):
        Engine([ModelSource(), ModelSource()], runs=tmp_path)


def test_every_event_of_a_generation_travels_between_processes(tiny_pipeline):
    settings = GenerationSettings(PROMPT, steps=2, frames=9, height=32, width=48)
    events = [pickle.loads(pickle.dumps(event)) for event in stream(tiny_pipeline, settings, attention=True)]
    assert [type(event) for event in events] == [StepPreview, StepPreview, Generation]
    assert events[-1].trace is not None
    assert events[-1].attention is not None


# --- where runs go ----------------------------------------------------------------------------------------------------


def test_runs_go_to_a_spaces_own_storage_where_it_has_some(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(cli, "_BUCKET", tmp_path)
    assert cli._runs_folder(on_space=True) == Path("runs"), "an ordinary folder is no storage of its own"
    monkeypatch.setattr(cli, "_BUCKET", Path("/proc"))  # mounted wherever tests run
    assert cli._runs_folder(on_space=True) == Path("/proc/runs")
    assert cli._runs_folder(on_space=False) == Path("runs")


@pytest.mark.parametrize(("lasts", "said"), [(True, "kept in runs/"), (False, "gone when this Space restarts")])
def test_the_page_says_what_becomes_of_runs(tmp_path: Path, lasts: bool, said: str):
    from prophy.ui.page import build_demo

    demo = build_demo(Engine(runs=tmp_path / "runs", gallery=tmp_path / "none", runs_last=lasts))
    assert said in str(demo.config)
