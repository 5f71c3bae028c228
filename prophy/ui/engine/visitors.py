"""What comes from a visitor's browser, and may therefore be anything: their secret, events' data, the page's link."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

OWN_RUNS_KEPT = 24
_SECRET = re.compile(r"[0-9a-f]{64}")  # 256 random bits, as static/visitor.js makes them


def run_of(query: Mapping[str, str]) -> str | None:
    """The run that ``?run=`` names, unchecked. What else an address says of it is the routing view's to read."""
    return query.get("run") or None


def owner_of(secret: object) -> str:
    """The digest that stands for a visitor: what is kept beside their runs. Empty for whoever brought no secret."""
    if not isinstance(secret, str) or _SECRET.fullmatch(secret) is None:
        return ""
    return hashlib.sha256(f"prophy visitor {secret}".encode()).hexdigest()


def told(data: object, name: str) -> str:
    """A text in the data of an event; empty if there is none."""
    value = data.get(name) if isinstance(data, Mapping) else None
    return value if isinstance(value, str) else ""
