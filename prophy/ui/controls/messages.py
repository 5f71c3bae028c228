"""One line to a visitor, as HTML. What they typed is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence


def error(message: str) -> str:
    """Something cannot be done."""
    text = html.escape(message[:1].upper() + message[1:])
    return f'<p class="pp-notice is-error" role="alert">{text}.</p>'


def note(message: str) -> str:
    """Something to know."""
    return f'<p class="pp-notice" role="status">{html.escape(message)}</p>'


def unknown_words(words: Sequence[str]) -> str:
    """Words of a prompt that the model has never seen; empty for none."""
    if not words:
        return ""
    return note(f"The model has never seen: {', '.join(words)}. It works from the other words.")
