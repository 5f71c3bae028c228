"""One line to a visitor, as HTML. What they typed is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence

from prophy.ui.engine.errors import for_visitors

_WORDS = 8  # that are named


def error(message: str | BaseException) -> str:
    """Something cannot be done."""
    said = for_visitors(message)
    text = html.escape(said[:1].upper() + said[1:])
    return f'<p class="pp-notice is-error" role="alert">{text}.</p>'


def note(message: str) -> str:
    """Something to know."""
    return f'<p class="pp-notice" role="status">{html.escape(for_visitors(message))}</p>'


def unknown_words(words: Sequence[str]) -> str:
    """Words of a prompt that the model has never seen; empty for none."""
    if not words:
        return ""
    more = f" and {len(words) - _WORDS} more" if len(words) > _WORDS else ""
    return note(f"The model has never seen: {', '.join(words[:_WORDS])}{more}. It works from the other words.")
