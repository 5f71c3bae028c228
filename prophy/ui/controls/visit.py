"""Who asks, from a request as gradio hands it to an event."""

from __future__ import annotations

from typing import Any

import gradio as gr

from prophy.ui.engine.engine import Engine
from prophy.ui.engine.line import Visitor
from prophy.ui.engine.visitors import AGENT, address_of, agent_of


def visitor_of(visit: gr.Request | None) -> Visitor:
    """Session and address of a request; those of nobody without one. All agents of an address are one session."""
    if visit is None:
        return Visitor("")
    peer = visit.client.host if visit.client else None
    address = address_of(peer, visit.headers.get("x-forwarded-for"))
    return Visitor(f"agents {address}" if visit.headers.get(AGENT) else _session(visit), address)


def _session(visit: gr.Request) -> str:
    return getattr(visit, "session_hash", None) or ""


def asked_by(engine: Engine, visit: gr.Request) -> dict[str, Any]:
    """What :meth:`prophy.ui.engine.engine.Engine.generate` wants to know of who asks, by its names."""
    agent = visit.headers.get(AGENT)
    listener = agent_of(agent) if agent else _session(visit)
    return {"visitor": visitor_of(visit), "is_here": lambda: engine.presence.is_here(listener)}
