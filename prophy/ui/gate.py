"""The gate before gradio's routes: who listens, how much a request may carry, and how many of them one address has."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections import deque
from contextlib import suppress
from typing import Protocol
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prophy.schema import parsed
from prophy.ui.engine.counted import Counted
from prophy.ui.engine.presence import Presence
from prophy.ui.engine.visitors import AGENT, address_of, agent_of

#: Gradio's routes that stay open while a page or a program listens to a session, or to one event.
_OF_SESSION = re.compile(r"/gradio_api/heartbeat/(?P<session>[^/]+)$")
_OF_EVENT = re.compile(r"/gradio_api/call/(?:v2/)?[^/]+/(?P<event>[^/]+)$")
_LISTENING = "/gradio_api/queue/data"
_JOINING = re.compile(r"/gradio_api/(?:queue/join|call/(?:v2/)?(?P<name>[^/]+))/?$")
_AGENTS = re.compile(r"/gradio_api/mcp(?:/|$)")
_UPLOAD = "/gradio_api/upload"
#: Those that the page does not need: they write files, fetch from other machines, or change the app.
_NOT_OFFERED = re.compile(
    r"/gradio_api/(?:deep_link|process_recording|proxy=|file[=/]https?:|stream/|vibe-|undo-vibe-|dev/|run-history)",
    re.IGNORECASE,
)
UPLOADS_KEPT_SECONDS = 3600  #: of a visitor's file; the page sweeps them
_MOST_UPLOADS, _MOST_UPLOADED = 200, 2**30  # in that time: files, and bytes of all of them
_FORM_BYTES = 2**16  # of an upload, beside its file
_HEARD_BYTES, _HEARD_SECONDS = 2**23, 5.0  # of a request that is refused
_MOST_BYTES = 2**22  # of a request that is no upload: a steering with every cell painted has two million characters
_MOST_HELD = 2**28  # bytes of requests that are still arriving or being answered
_BODY_SECONDS, _SLOWEST = 30.0, 2**15  # for a request to arrive; bytes a second of an upload beyond them
_LONGEST_SESSION = 100  # characters; gradio's own have eleven, and it keeps them in several tables
_MOST_UNREAD = 100  # answers that wait for a session, before it is to read them; a generation has up to sixty
_FORGET_SECONDS = 5.0  # between two looks at what nobody listens to
_STREAMS_EACH, _STREAMS = 200, 2000  # open at once, of an address and in all; a page has two
_CALLS_EACH, _CALLS = 8, 24  # of agents; gradio has forty threads for them and for opening the page


class Mail(Protocol):
    """What gradio's queue has for its sessions."""

    def session_of(self, event: str) -> str:
        """The session of an event, by the event's id; the id itself for one that has none."""

    def unread(self, session: str) -> int:
        """How many answers wait for a session."""

    def is_queued(self, function: int | str) -> bool:
        """Whether a function, by its number or name, may be waited for: the page's own that answer at once may not, for
        their answers are large. True where there is no such function.
        """

    def left(self, session: str) -> None:
        """A session has no connection any more."""

    def forget_absent(self) -> None:
        """Throw away what waits for sessions to which nobody listens any more."""


class Gate:
    """ASGI middleware.

    Args:
        app: what it stands before.
        presence: is told who listens.
        most_upload: bytes of one file that a view of the page takes; 0 where none takes any, and all are refused.
        mail: of gradio's queue.
    """

    def __init__(self, app: ASGIApp, presence: Presence, most_upload: int, mail: Mail) -> None:
        self._app, self._presence, self._mail = app, presence, mail
        self._most_upload = most_upload
        self._uploads: deque[tuple[float, int]] = deque()  # of the last hour: when, and how many bytes
        self._held = 0  # bytes of requests
        self._forgot = time.monotonic()
        self._streams, self._calls = Counted(_STREAMS_EACH, _STREAMS), Counted(_CALLS_EACH, _CALLS)
        presence.is_watched = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif _NOT_OFFERED.search(scope["path"]):
            await _refuse(receive, send, 404, "this app does not offer that")
        elif scope["path"].rstrip("/").endswith(_UPLOAD):
            if (refusal := self._refused_upload(scope)) is None:
                await self._app(scope, _in_time(receive, _BODY_SECONDS + _length(scope) / _SLOWEST), send)
            else:
                await _refuse(receive, send, *refusal)
        elif (session := self._listener(scope)) is not None:
            await self._listening(session, scope, receive, send)
        elif scope["method"] == "POST" and _AGENTS.search(scope["path"]):
            await self._of_agent(scope, receive, send)
        else:
            await self._bounded(scope, receive, send)

    def _listener(self, scope: Scope) -> str | None:
        """The session whose connection this request is, if it is one that stays open; empty for an agent's."""
        if scope["method"] != "GET":
            return None
        path = scope["path"]
        if path.endswith(_LISTENING):
            return (parse_qs(scope["query_string"].decode("latin-1")).get("session_hash") or [None])[0]
        if found := _OF_SESSION.search(path):
            return found["session"]
        if found := _OF_EVENT.search(path):
            return self._mail.session_of(found["event"])
        return "" if _AGENTS.search(path) else None

    async def _listening(self, session: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection that stays open, and count it."""
        if len(session) > _LONGEST_SESSION:
            await _refuse(receive, send, 400, _LONG_SESSION)
            return
        with self._streams.one(_address(scope)) as may:
            if not may:
                await _refuse(receive, send, 429, "too many pages are open at once: close some")
                return
            if not session:  # an agent's, which waits for its calls one by one
                await self._app(scope, receive, send)
                return
            self._presence.came(session)
            try:
                await self._app(scope, receive, send)
            finally:
                self._presence.went(session)
                if not self._presence.listens(session):
                    self._mail.left(session)

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

    async def _of_agent(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A call by the Model Context Protocol. Gradio makes a request of its own of it, in one session for all agents:
        headers say from which address it comes, and by which name to ask whether the agent still waits.
        """
        address, name = _address(scope), secrets.token_hex(16)
        session, ours = agent_of(name), {b"x-forwarded-for": address.encode(), AGENT.encode(): name.encode()}
        kept = [(key, value) for key, value in scope["headers"] if key.lower() not in ours]
        marked = {**scope, "headers": [*kept, *((key, value) for key, value in ours.items() if value)]}
        waits = True

        def leave() -> None:
            nonlocal waits
            if waits:
                waits = False
                self._presence.went(session)

        async def watched() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                leave()
            return message

        with self._calls.one(address) as may:
            if not may:
                await _refuse(receive, send, 429, "too many calls at once: wait for the answers")
                return
            self._presence.came(session)
            try:
                await self._bounded(marked, watched, send)
            finally:
                leave()

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request whose body arrives in time and is not too large, whether it says its length or not."""
        if _length(scope) > _MOST_BYTES:
            await _refuse(receive, send, 413, "the request is too large")
            return
        if scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        if dict(scope["headers"]).get(b"content-type", b"").lower().startswith(b"multipart/"):
            await _refuse(receive, send, 415, "send JSON")
            return
        pieces: list[bytes] = []
        try:
            try:
                async with asyncio.timeout(_BODY_SECONDS):
                    refusal = await self._heard(pieces, receive)
            except TimeoutError:
                refusal = 408, "the request takes too long to arrive"
            body = b"".join(pieces)
            if refusal is not None:
                if refusal[0]:
                    await _refuse(receive, send, *refusal)
            elif (refusal := self._refused_body(scope, body)) is not None:
                await _answer(send, *refusal)
            else:
                await self._app(scope, _replayed(body, receive), send)
        finally:
            self._held -= sum(map(len, pieces))

    async def _heard(self, pieces: list[bytes], receive: Receive) -> tuple[int, str] | None:
        """Take in a request's body; why it is refused, with 0 where its client is gone."""
        length, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return 0, ""
            piece, more = message.get("body", b""), message.get("more_body", False)
            pieces.append(piece)
            length += len(piece)
            self._held += len(piece)
            if length > _MOST_BYTES:
                return 413, "the request is too large"
            if self._held > _MOST_HELD:
                return 503, "too many requests at once: try again in a moment"
        return None

    def _refused_body(self, scope: Scope, body: bytes) -> tuple[int, str] | None:
        try:
            asked = parsed(body)  # as gradio will read it
        except ValueError:
            return None  # gradio says what is wrong with it
        if not isinstance(asked, dict):
            return None
        session = asked.get("session_hash")
        if isinstance(session, str) and len(session) > _LONGEST_SESSION:
            return 400, _LONG_SESSION
        if (joined := _JOINING.search(scope["path"])) is None:
            return None
        function = joined["name"] or asked.get("fn_index")
        if isinstance(function, int | str) and not self._mail.is_queued(function):
            return 400, "that answers at once: ask for it without the queue"
        if time.monotonic() - self._forgot > _FORGET_SECONDS:
            self._forgot = time.monotonic()
            self._mail.forget_absent()
        if isinstance(session, str) and self._mail.unread(session) > _MOST_UNREAD:
            return 429, "answers to earlier requests wait: read them first"
        return None


_LONG_SESSION = f"a session's name has at most {_LONGEST_SESSION} characters"


def _address(scope: Scope) -> str:
    client, forwarded = scope.get("client"), dict(scope["headers"]).get(b"x-forwarded-for")
    return address_of(client[0] if client else None, None if forwarded is None else forwarded.decode("latin-1"))


def _length(scope: Scope) -> int:
    """The length that a request says; 0 if it says none."""
    said = dict(scope["headers"]).get(b"content-length", b"0")
    return int(said) if said.isdigit() and len(said) < 16 else 0


def _in_time(receive: Receive, seconds: float) -> Receive:
    """A request's messages until so many seconds from now; what comes later, its client is taken for gone.

    Once the body is whole, there is no limit: what is waited for then is that the client goes.
    """
    end, whole = time.monotonic() + seconds, False

    async def timed() -> Message:
        nonlocal whole
        if whole:
            return await receive()
        try:
            async with asyncio.timeout(end - time.monotonic()):
                message = await receive()
        except TimeoutError:
            return {"type": "http.disconnect"}
        whole = not message.get("more_body", False)
        return message

    return timed


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A request's messages with its body, which has been taken in, first."""
    first = True

    async def again() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


async def _refuse(receive: Receive, send: Send, status: int, why: str) -> None:
    """Answer after what is on its way: a client that sends before it reads would only see a broken connection."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_HEARD_SECONDS):
            heard, message = 0, await receive()
            while message.get("more_body") and heard < _HEARD_BYTES:
                heard += len(message.get("body", b""))
                message = await receive()
    await _answer(send, status, why)


async def _answer(send: Send, status: int, why: str) -> None:
    body = json.dumps({"detail": why}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
