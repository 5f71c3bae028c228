"""Evidence: everything measured for the model, with intervals, controls and commands. Read when the tab is opened."""

from __future__ import annotations

import os
from pathlib import Path

import gradio as gr

from prophy.assets import assets_dir
from prophy.evaluation.report.html import SCRIPT, head, opening, rest, unmeasured
from prophy.evaluation.report.sections import Section, in_order, read_section, result_paths
from prophy.ui.controls import messages


def evidence_tab(tab: gr.Tab, work: Path | None = None) -> None:
    """Build the tab's parts, inside the page.

    Args:
        tab: whose opening reads the results.
        work: folder with an ``evaluation/`` of results; None: what was shipped.

    Raises:
        FileNotFoundError: no such folder.
    """
    if work is not None and not Path(work).is_dir():
        raise FileNotFoundError(f"--evidence {work} is no folder: give one whose evaluation/ holds results")
    folder = Path(work) if work is not None else assets_dir() / "evidence"
    opened = gr.State(False)
    tab.select(lambda: True, None, opened, show_progress="hidden", api_visibility="private")

    @gr.render(opened, triggers=[opened.change], queue=False)
    def draw(is_open: bool) -> None:
        if is_open:
            _draw(folder)

    # A renderer takes no visibility of its own: it would be an endpoint that nobody asked for.
    demo = gr.context.Context.root_block
    demo.fns[max(demo.fns)].api_visibility = "private"


def readable(folder: Path) -> tuple[tuple[Section, ...], tuple[str, ...]]:
    """The sections of a work folder, and a line for each result that cannot be shown."""
    sections, complaints = [], []
    try:
        paths = result_paths(folder)
    except FileNotFoundError:
        return (), ("Nothing was measured for this model yet. Measure it with the commands below.",)
    for path in paths:
        try:
            sections.append(read_section(path))
        except (OSError, ValueError) as error:
            complaints.append(str(error).replace(f"{folder}{os.sep}", ""))
    return in_order(sections), tuple(complaints)


def _draw(folder: Path) -> None:
    sections, complaints = readable(folder)
    with gr.Column(elem_classes="evidence", elem_id="evidence"):
        for complaint in complaints:
            _html(messages.error(complaint) if sections else messages.note(complaint))
        if sections:
            _html(opening(sections))
        for section in sections:
            _html(head(section))
            with gr.Row(elem_classes="ev-plots", visible=bool(section.body.plots)):
                for plot in section.body.plots:
                    gr.Plot(plot, show_label=False, container=False, min_width=300)
            _html(rest(section))
        _html(unmeasured(sections))


def _html(text: str) -> None:
    gr.HTML(text, apply_default_css=False, js_on_load=SCRIPT.read_text(encoding="utf-8"))
