"""About: the method on one screen, what the model has seen, what was measured, what the pictures cannot show."""

from __future__ import annotations

import html

import gradio as gr

from prophy.ui.engine.models import ModelCard
from prophy.ui.views.component import STATIC


def about_tab(card: ModelCard) -> None:
    """Build the tab's parts, inside the page."""
    text = (STATIC / "about.html").read_text(encoding="utf-8")
    gr.HTML(text.replace("<!-- model -->", about_model(card)), apply_default_css=False, elem_id="about")


def about_model(card: ModelCard) -> str:
    """What may be said of a model, as HTML."""
    name = html.escape(card.name)
    if card.is_embedded:
        trained = (
            f"<strong>{name}</strong> was trained from scratch on small synthetic 2-D worlds only: 17 frames of 64×64 "
            "pixels, 8 a second. It is a test bed, not a rival of any video model."
        )
    else:
        made = card.made
        trained = (
            f"Using <strong>{name}</strong>: {made.width}×{made.height} pixels, {made.frames} frames, {made.fps:g} a "
            "second. What it was trained on is for its authors to say."
        )
    parts = [f"<p>{trained}</p>"]
    if not card.has_branch:
        parts.append("<p>It has no physical branch here, so its clips come without routing.</p>")
    if card.words:
        words = " ".join(html.escape(word) for word in card.words)
        parts.append(
            f"<details><summary>It knows {len(card.words)} words and nothing else</summary><p>{words}</p></details>"
        )
    return f'<aside class="pp-about">{"".join(parts)}</aside>'
