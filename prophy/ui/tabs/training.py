"""Training: what the folder of a run says of it while it trains: where it is, its curves, its samples.

The page knows the folders from the command line alone. Of a visitor it takes names, and looks them up.
"""

from __future__ import annotations

import html
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import gradio as gr

from prophy.runs.record import RunError
from prophy.training.curves import CHARTS
from prophy.training.log import Line
from prophy.training.run_folder import Look, TrainingRun, Trainings
from prophy.ui.controls import messages
from prophy.ui.views.routing import RunView, routing_view

NAME = "Training"

_SECONDS = 2.5  # between two looks, while the tab is open
_QUIET_SECONDS, _QUIET_LINES = 60.0, 4  # without a line, and how many times the usual time: then it may have stopped


class Shown(NamedTuple):
    """What a visitor's page shows, so that only what is new is sent.

    Attributes:
        runs: names to choose from.
        run: the one on show.
        version: of its lines.
        facts: HTML.
        notice: HTML.
        steps: folders of samples to choose from.
        step: the one on show.
        samples: to choose from.
        sample: the one on show.
    """

    runs: tuple[str, ...] = ()
    run: str | None = None
    version: int | None = None
    facts: str = ""
    notice: str = ""
    steps: tuple[str, ...] = ()
    step: str | None = None
    samples: tuple[str, ...] = ()
    sample: str | None = None


class TrainingTab:
    """The tab's parts, built where this is called, inside the page.

    Args:
        trainings: whose runs it shows.
        tabs: of the page; the folders are read only while this tab is open.
    """

    def __init__(self, trainings: Trainings, tabs: gr.Tabs) -> None:
        self._trainings = trainings
        self._run = gr.Radio([], label="Run, the one begun last first", elem_id="training-run", visible=False)
        self._facts = gr.HTML(elem_id="training-facts", apply_default_css=False)
        self._notice = gr.HTML(elem_id="training-notice", elem_classes="pp-notices", apply_default_css=False)
        self._plots: dict[str, tuple[gr.Column, gr.Plot]] = {}
        with gr.Column(elem_classes="pp-charts"):
            for chart in CHARTS:
                with gr.Column(visible=False, elem_id=f"training-{chart.id}", elem_classes="pp-chart") as part:
                    heading = f'<h3 class="pp-heading">{chart.heading} <span>{chart.note}</span></h3>'
                    gr.HTML(heading, apply_default_css=False)
                    self._plots[chart.id] = part, gr.Plot(show_label=False, container=False, elem_classes="pp-plot")
        with gr.Column(visible=False, elem_classes="pp-shelf", elem_id="training-samples") as self._samples:
            with gr.Row(elem_classes="pp-sample"):
                self._step = gr.Dropdown([], label="Samples made at", elem_id="training-step", scale=1, min_width=150)
                self._sample = gr.Radio([], label="Prompt", elem_id="training-sample", scale=4, min_width=260)
            self._refusal = gr.HTML(elem_id="training-refusal", elem_classes="pp-notices", apply_default_css=False)
            self._view = routing_view(None, elem_id="training-view")
        self._shown = gr.State(Shown())
        self._timer = gr.Timer(_SECONDS, active=False)
        quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        parts = [self._shown, self._run, self._facts, self._notice, self._samples, self._step, self._sample]
        parts += [self._refusal, self._view]
        parts += [block for pair in self._plots.values() for block in pair]
        # From what is chosen, not from what is shown: so a late answer is put right by the next look.
        asked = [self._run, self._step, self._sample, self._shown]
        tabs.select(self._on_tab, asked, [self._timer, *parts], **quiet)
        self._timer.tick(self._update, asked, parts, **quiet)
        gr.on([self._run.input, self._step.input, self._sample.input], self._update, asked, parts, **quiet)

    def _on_tab(
        self, run: str | None, step: str | None, sample: str | None, shown: Shown, tab: gr.SelectData
    ) -> dict[Any, Any]:
        if tab.value != NAME:
            return {self._timer: gr.Timer(active=False)}
        return {self._timer: gr.Timer(active=True), **self._update(run, step, sample, shown)}

    def _update(self, run: str | None, step: str | None, sample: str | None, shown: Shown) -> dict[Any, Any]:
        """What changes on a page to show this run and this sample; the newest of what is not given, or gone."""
        runs = self._trainings.runs()
        names = tuple(runs)
        run = run if run in names else next(iter(names), None)
        update: dict[Any, Any] = {}
        if run is None:
            waits = f"No run in {self._trainings.names} yet. One that begins there appears here by itself."
            now = Shown(notice=messages.note(waits))
            update |= self._plotted(()) if shown.run is not None else {}
        else:
            look = runs[run].look()
            clock = time.time()
            now = Shown(names, run, look.version, facts_of(look, clock), notice_of(look, clock), look.samples)
            now = _with_sample(now, runs[run], shown, step, sample)
            if (now.run, now.version) != (shown.run, shown.version):
                update |= self._plotted(look.lines)
        if now == shown:
            return {self._notice: gr.skip()}
        if now.runs != shown.runs:
            update[self._run] = gr.update(choices=list(names), value=run, visible=len(names) > 1)
        if now.facts != shown.facts:
            update[self._facts] = now.facts
        if now.notice != shown.notice:
            update[self._notice] = now.notice
        opened = None if run is None else runs[run]
        return {self._shown: now, **update, **self._opened(opened, shown, now)}

    def _plotted(self, lines: Sequence[Line]) -> dict[Any, Any]:
        update: dict[Any, Any] = {}
        for chart in CHARTS:
            part, plot = self._plots[chart.id]
            figure = chart.draw(lines)
            update |= {part: gr.update(visible=figure is not None), plot: figure}
        return update

    def _opened(self, run: TrainingRun | None, shown: Shown, now: Shown) -> dict[Any, Any]:
        """The choice of samples, and the one chosen."""
        chosen, before = ((one.run, one.step, one.sample) for one in (now, shown))
        if (chosen, now.steps, now.samples) == (before, shown.steps, shown.samples):
            return {}
        steps = [(_step_name(step), step) for step in now.steps]
        samples = []
        if run is not None and now.step is not None:
            samples = [(_prompt(run, now.step, sample), sample) for sample in now.samples]
        update: dict[Any, Any] = {
            self._samples: gr.update(visible=now.sample is not None),
            self._step: gr.update(choices=steps, value=now.step),
            self._sample: gr.update(choices=samples, value=now.sample),
        }
        if chosen != before:
            update |= self._view_of(run, now)
        return update

    def _view_of(self, run: TrainingRun | None, now: Shown) -> dict[Any, Any]:
        if run is None or now.step is None or now.sample is None:
            return {self._view: None, self._refusal: ""}
        try:
            made = run.sample(now.step, now.sample)
            view = RunView.of(made, made.trace())
        except (RunError, OSError) as error:
            return {self._view: None, self._refusal: messages.error(f"this sample cannot be opened: {error}")}
        return {self._view: replace(view, id=f"{now.run} {now.step} {now.sample}").as_json(), self._refusal: ""}


def _with_sample(now: Shown, run: TrainingRun, shown: Shown, step: str | None, sample: str | None) -> Shown:
    """The sample that was asked for. Who looks at the newest step goes on to the next one."""
    followed = step == shown.step and shown.steps[:1] == (step,)
    if now.run != shown.run or followed or step not in now.steps:
        step = next(iter(now.steps), None)
    samples = () if step is None else run.sample_ids(step)
    return now._replace(step=step, samples=samples, sample=sample if sample in samples else next(iter(samples), None))


def _step_name(folder: str) -> str:
    return f"step {int(folder.removeprefix('step-')):,}"


def _prompt(run: TrainingRun, step: str, sample: str) -> str:
    try:
        return run.sample(step, sample).record.prompt
    except RunError:
        return sample


# --- words ------------------------------------------------------------------------------------------------------------


def facts_of(look: Look, now: float) -> str:
    """Where a run is, as HTML.

    Args:
        look: at the run.
        now: in seconds since the epoch.
    """
    about, made = look.about, [line for line in look.lines if line["kind"] == "train"]
    step = look.lines[-1]["step"] if look.lines else 0
    facts: list[tuple[str, str]] = []
    if about is not None:
        facts.append(("recipe", about.shown_name or "unnamed"))
        facts.append(("base model", about.shown_base or "not recorded"))
        facts.append(("step", f"{step:,} of {about.steps:,}"))
        if made and step < about.steps:
            pace = statistics.median(line["seconds_per_step"] for line in made[-20:])
            facts.append(("time left", duration((about.steps - step) * pace)))
    else:
        facts.append(("step", f"{step:,}"))
    facts.append(("log", _state(look, now)))
    if look.saved is None:
        facts.append(("last checkpoint", "none yet"))
    else:
        facts.append(("last checkpoint", f"step {look.saved.step:,}, {_ago(now - look.saved.when)}"))
    if about is not None:
        facts.append(("trained parameters", f"{about.trained_parameters:,}"))
        each = f", {about.processes} processes" if about.processes > 1 else ""
        if about.batch is not None:
            facts.append(("batch size", f"{about.batch}{each}"))
    said = "".join(f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>" for name, value in facts)
    return f'<dl class="pp-run-facts">{said}</dl>'


def notice_of(look: Look, now: float) -> str:
    """What a visitor should know of a run, as HTML: what cannot be read, and what is not there."""
    said = [messages.error(fault) for fault in look.faults]
    if look.written is None:
        said.append(messages.note("No log yet: the first line comes after --log-every steps."))
    elif _is_silent(look, now):
        said.append(
            messages.note(
                f"No line for {duration(now - look.written)}: the training is saving, sampling or validating, or it "
                "has stopped. Its command, run again, resumes it."
            )
        )
    if look.lines and not any(line["kind"] == "validation" for line in look.lines):
        said.append(
            messages.note("No held-out losses so far: --held-out DIR gives them, every --validate-every steps.")
        )
    return "".join(said)


def _state(look: Look, now: float) -> str:
    """Whether a run still writes."""
    if look.written is None:
        return "not written yet"
    if _is_finished(look):
        return f"finished {_ago(now - look.written)}"
    return f"last line {_ago(now - look.written)}" if _is_silent(look, now) else "being written"


def _is_finished(look: Look) -> bool:
    return look.about is not None and bool(look.lines) and look.lines[-1]["step"] >= look.about.steps


def _is_silent(look: Look, now: float) -> bool:
    """Nothing in the folder says that a training was ended: only silence does."""
    if look.written is None or _is_finished(look):
        return False
    made = [line for line in look.lines[-9:] if line["kind"] == "train"]
    usual = (made[-1]["step"] - made[-2]["step"]) * made[-1]["seconds_per_step"] if len(made) > 1 else 0.0
    return now - look.written > max(_QUIET_SECONDS, _QUIET_LINES * usual)


def _ago(seconds: float) -> str:
    return "less than a minute ago" if seconds < 60 else f"{duration(seconds)} ago"


def duration(seconds: float) -> str:
    """In the largest unit that has at least one, and the next."""
    if seconds < 60:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
