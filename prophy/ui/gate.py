"""The gate before gradio's routes: who listens, and how much a request may carry."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prophy.ui.engine.presence import Presence

#: Gradio's routes that stay open while a page or a program listens to a session, or to one event.
_OF_SESSION = re.compile(r"/gradio_api/heartbeat/(?P<session>[^/]+)$")
_OF_EVENT = re.compile(r"/gradio_api/call/(?:v2/)?[^/]+/(?P<event>[^/]+)$")
_UPLOAD = "/gradio_api/upload"
_LISTENING = "/gradio_api/queue/data"
UPLOADS_KEPT_SECONDS = 3600  #: of a visitor's file; the page sweeps them
_MOST_UPLOADS, _MOST_UPLOADED = 200, 2**30  # in that time: files, and bytes of all of them
_FORM_BYTES = 2**16  # of an upload, beside its file
_HEARD_BYTES, _HEARD_SECONDS = 2**23, 5.0  # of a request that is refused
_MOST_BYTES = 2**22  # of a request that is no upload: a steering with every cell painted has two million characters


class Gate:
    """ASGI middleware.

    Args:
        app: what it stands before.
        presence: is told who listens.
        most_upload: bytes of one file that a view of the page takes; 0 where none takes any, and all are refused.
        session_of: the session of an event, by the event's id; the id itself for one that has none.
    """

    def __init__(self, app: ASGIApp, presence: Presence, most_upload: int, session_of: Callable[[str], str]) -> None:
        self._app, self._presence, self._session_of = app, presence, session_of
        self._most_upload = most_upload
        self._uploads: deque[tuple[float, int]] = deque()  # of the last hour: when, and how many bytes
        presence.is_watched = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"].rstrip("/").endswith(_UPLOAD):
            if (refusal := self._refused_upload(scope)) is None:
                await self._app(scope, receive, send)
            else:
                await _refuse(receive, send, *refusal)
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

    def _refused_upload(self, scope: Scope) -> tuple[int, str] | None:
        """Why an upload is refused; None, and it is counted, if it is not. Gradio removes files after an hour."""
        if not self._most_upload:
            return 403, "this app takes no files"
        length = _length(scope)
        if not length:
            return 411, "an upload must say its length"
        if length > self._most_upload + _FORM_BYTES:
            return 413, f"the file is too large: send at most {self._most_upload >> 20} MiB"
        now = time.monotonic()
        while self._uploads and now - self._uploads[0][0] > UPLOADS_KEPT_SECONDS:
            self._uploads.popleft()
        total = sum(size for _, size in self._uploads) + length
        if len(self._uploads) >= _MOST_UPLOADS or total > _MOST_UPLOADED:
            return 429, "too many files were sent in the last hour: try again later"
        self._uploads.append((now, length))
        return None

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request whose body is not too large, whether it says its length or not."""
        if _length(scope) > _MOST_BYTES:
            await _refuse(receive, send, 413, "the request is too large")
            return
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            return message if taken <= _MOST_BYTES else {"type": "http.disconnect"}

        await self._app(scope, counted, send)


def _length(scope: Scope) -> int:
    """The length that a request says; 0 if it says none."""
    said = dict(scope["headers"]).get(b"content-length", b"0")
    return int(said) if said.isdigit() and len(said) < 16 else 0


async def _refuse(receive: Receive, send: Send, status: int, why: str) -> None:
    """Answer after what is on its way: a client that sends before it reads would only see a broken connection."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_HEARD_SECONDS):
            heard, message = 0, await receive()
            while message.get("more_body") and heard < _HEARD_BYTES:
                heard += len(message.get("body", b""))
                message = await receive()
    body = json.dumps({"detail": why}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
