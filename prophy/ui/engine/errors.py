"""What the engine tells a visitor that it cannot do."""

from __future__ import annotations


class EngineError(ValueError):
    """A request cannot be met. The message is for the person who made it."""
