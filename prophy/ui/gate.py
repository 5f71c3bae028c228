"""The gate before gradio's routes: who listens, and how much a request may carry."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prophy.ui.engine.presence import Presence

#: Gradio's routes that stay open while a page or a program listens to a session, or to one event.
_OF_SESSION = re.compile(r"/gradio_api/heartbeat/(?P<session>[^/]+)$")
_OF_EVENT = re.compile(r"/gradio_api/call/(?:v2/)?[^/]+/(?P<event>[^/]+)$")
_UPLOAD = "/gradio_api/upload"
_LISTENING = "/gradio_api/queue/data"
_MOST_BYTES = 2**22  # of a request that is no upload: a steering with every cell painted has two million characters


class Gate:
    """ASGI middleware.

    Args:
        app: what it stands before.
        presence: is told who listens.
        takes_files: whether a view of the page does; else every upload is refused.
        session_of: the session of an event, by the event's id; the id itself for one that has none.
    """

    def __init__(self, app: ASGIApp, presence: Presence, takes_files: bool, session_of: Callable[[str], str]) -> None:
        self._app, self._presence, self._session_of = app, presence, session_of
        self._takes_files = takes_files
        presence.is_watched = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"].rstrip("/").endswith(_UPLOAD):
            if self._takes_files:  # gradio bounds them by its own setting
                await self._app(scope, receive, send)
            else:
                await _refuse(send, 403, "this app takes no files")
            return
        if (session := self._listener(scope)) is None:
            await self._bounded(scope, receive, send)
            return
        self._presence.came(session)
        try:
            await self._app(scope, receive, send)
        finally:
            self._presence.went(session)

    def _listener(self, scope: Scope) -> str | None:
        """The session whose connection this request is, if it is one that stays open."""
        if scope["method"] != "GET":
            return None
        path = scope["path"]
        if path.endswith(_LISTENING):
            return (parse_qs(scope["query_string"].decode("latin-1")).get("session_hash") or [None])[0]
        if found := _OF_SESSION.search(path):
            return found["session"]
        if found := _OF_EVENT.search(path):
            return self._session_of(found["event"])
        return None

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request whose body is not too large, whether it says its length or not."""
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 15 or int(length) > _MOST_BYTES:
            await _refuse(send, 413, "the request is too large")
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            return message if taken <= _MOST_BYTES else {"type": "http.disconnect"}

        await self._app(scope, counted, send)


async def _refuse(send: Send, status: int, why: str) -> None:
    body = json.dumps({"detail": why}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
