"""Who asks, from a request as gradio hands it to an event."""

from __future__ import annotations

from typing import Any

import gradio as gr

from prophy.ui.engine.engine import Engine
from prophy.ui.engine.line import Visitor
from prophy.ui.engine.visitors import address_of


def visitor_of(visit: gr.Request | None) -> Visitor:
    """Session and address of a request; those of nobody without one."""
    if visit is None:
        return Visitor("")
    peer = visit.client.host if visit.client else None
    address = address_of(peer, visit.headers.get("x-forwarded-for"))
    return Visitor(getattr(visit, "session_hash", None) or "", address)


def asked_by(engine: Engine, visit: gr.Request) -> dict[str, Any]:
    """What :meth:`prophy.ui.engine.engine.Engine.generate` wants to know of who asks, by its names."""
    visitor = visitor_of(visit)
    return {"visitor": visitor, "is_here": lambda: engine.presence.is_here(visitor.session)}
