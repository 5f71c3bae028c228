"""The gate before gradio's routes: who listens, how much a request may carry, how many one address has, how often."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections import deque
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from prophy.schema import parsed
from prophy.ui.asgi import (
    TooLateError,
    TooMuchError,
    address_in,
    answer,
    asked_for,
    body_of,
    forwarded_in_one,
    in_time,
    length_of,
    refuse,
    replayed,
)
from prophy.ui.engine.counted import Counted, Pace, Turns
from prophy.ui.engine.presence import Presence
from prophy.ui.engine.visitors import AGENT, agent_of

#: Gradio's routes that stay open while a page or a program listens to a session, or to one event.
_OF_SESSION = re.compile(r"/gradio_api/heartbeat/(?P<session>[^/]+)$")
_OF_EVENT = re.compile(r"/gradio_api/call/(?:v2/)?[^/]+/(?P<event>[^/]+)$")
_LISTENING = "/gradio_api/queue/data"
_JOINING = re.compile(r"/gradio_api/(?:queue/join|call/(?:v2/)?(?P<name>[^/]+))/?$")
_AGENTS = re.compile(r"/gradio_api/mcp(?:/|$)")
_AT_ONCE = re.compile(r"/gradio_api/(?:run|api)/|/config/?$|^/?$")  # what a page asks for when it opens, and its views
_UPLOAD, _UPLOADING = "/gradio_api/upload", "/gradio_api/upload_progress"
#: Those that the page does not need: they write files, fetch from other machines, or change the app.
_NOT_OFFERED = re.compile(
    r"/gradio_api/(?:deep_link|process_recording|proxy=|file[=/]https?:|stream/|vibe-|undo-vibe-|dev/|run-history)",
    re.IGNORECASE,
)
UPLOADS_KEPT_SECONDS = 3600  #: of a visitor's file; the page sweeps them
_MOST_UPLOADS, _MOST_UPLOADED = 200, 2**30  # in that time: files, and bytes of all of them
_UPLOADS_EACH, _UPLOADED_EACH = 150, 3 * 2**28  # of one address: the rest is for others
_FORM_BYTES = 2**16  # of an upload, beside its file
_MOST_BYTES = 2**22  # of a request that is no upload: a steering with every cell painted has two million characters
_HELD_EACH, _HELD = 2**26, 2**28  # bytes of requests that still arrive or are answered, of an address and in all
_BODY_SECONDS, _SLOWEST = 30.0, 2**15  # for a request to arrive; bytes a second of an upload beyond them
_LONGEST_NAME = 100  # characters, of sessions and uploads; gradio's own have eleven, and it keeps them in tables
_MOST_UNREAD = 100  # answers that wait for a session, before it is to read them; a generation has up to sixty
_READ_SECONDS, _LOOK_SECONDS = 30.0, 0.1  # for whoever listens to read them, and between two looks whether it is done
_FORGET_SECONDS = 5.0  # between two looks at what nobody listens to
_STREAMS_EACH, _STREAMS = 200, 2000  # open at once, of an address and in all; a page has two
_CALLS_EACH, _CALLS = 8, 24  # of agents; gradio has forty threads for them and for opening the page
_TURNS_EACH = 8  # of what is answered at once: a page asks for up to six
_JOINS_AT_ONCE, _JOINS_A_SECOND = 40, 4.0  # of an address: each takes some milliseconds from a generation
_JOIN_SECONDS = 30.0  # that one may have to wait


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

    def forget_upload(self, name: str) -> None:
        """Nobody looks any more how far an upload is."""

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
        self._uploads: deque[tuple[float, int, str]] = deque()  # of the last hour: when, how many bytes, from where
        self._forgot = time.monotonic()
        self._streams, self._calls = Counted(_STREAMS_EACH, _STREAMS), Counted(_CALLS_EACH, _CALLS)
        self._held, self._turns = Counted(_HELD_EACH, _HELD), Turns(_TURNS_EACH)
        self._joins = Pace(_JOINS_AT_ONCE, _JOINS_A_SECOND, _JOIN_SECONDS)
        presence.is_watched = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = forwarded_in_one(scope)
        path = scope["path"]
        if _NOT_OFFERED.search(path):
            await refuse(receive, send, 404, "this app does not offer that")
        elif path.rstrip("/").endswith(_UPLOAD):
            await self._uploaded(scope, receive, send)
        elif path.endswith(_UPLOADING):
            await self._watching_upload(scope, receive, send)
        elif (session := self._listener(scope)) is not None:
            await self._listening(session, scope, receive, send)
        elif scope["method"] == "POST" and _AGENTS.search(path):
            await self._of_agent(scope, receive, send)
        else:
            await self._bounded(scope, receive, send)

    def _listener(self, scope: Scope) -> str | None:
        """The session whose connection this request is, if it is one that stays open; empty for an agent's."""
        if scope["method"] != "GET":
            return None
        path = scope["path"]
        if path.endswith(_LISTENING):
            return asked_for(scope, "session_hash")
        if found := _OF_SESSION.search(path):
            return found["session"]
        if found := _OF_EVENT.search(path):
            return self._mail.session_of(found["event"])
        return "" if _AGENTS.search(path) else None

    async def _listening(self, session: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection that stays open, and count it."""
        if len(session) > _LONGEST_NAME:
            await refuse(receive, send, 400, _LONG_NAME)
            return
        with self._streams.one(address_in(scope)) as may:
            if not may:
                await refuse(receive, send, 429, _MANY_PAGES)
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

    async def _watching_upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a connection that tells how far an upload is."""
        name = asked_for(scope, "upload_id") or ""
        if not self._most_upload or len(name) > _LONGEST_NAME:
            await refuse(receive, send, *((400, _LONG_NAME) if self._most_upload else (403, _NO_FILES)))
            return
        with self._streams.one(address_in(scope)) as may:
            if not may:
                await refuse(receive, send, 429, _MANY_PAGES)
                return
            try:
                await self._app(scope, receive, send)
            finally:
                self._mail.forget_upload(name)

    async def _uploaded(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (refusal := self._refused_upload(scope)) is not None:
            await refuse(receive, send, *refusal)
            return
        try:
            await self._app(scope, in_time(receive, _BODY_SECONDS + length_of(scope) / _SLOWEST), send)
        except TooLateError:
            await answer(send, 408, _TOO_LATE)

    def _refused_upload(self, scope: Scope) -> tuple[int, str] | None:
        """Why an upload is refused; None, and it is counted, if it is not. Gradio removes files after an hour."""
        if not self._most_upload:
            return 403, _NO_FILES
        if len(asked_for(scope, "upload_id") or "") > _LONGEST_NAME:
            return 400, _LONG_NAME
        length = length_of(scope)
        if not length:
            return 411, "an upload must say its length"
        if length > self._most_upload + _FORM_BYTES:
            return 413, f"the file is too large: send at most {self._most_upload >> 20} MiB"
        now = time.monotonic()
        while self._uploads and now - self._uploads[0][0] > UPLOADS_KEPT_SECONDS:
            self._uploads.popleft()
        address = address_in(scope)
        sizes = [size for _, size, _ in self._uploads]
        own = [size for _, size, whose in self._uploads if address and whose == address]
        if len(sizes) >= _MOST_UPLOADS or sum(sizes) + length > _MOST_UPLOADED:
            return 429, "too many files were sent in the last hour: try again later"
        if len(own) >= _UPLOADS_EACH or sum(own) + length > _UPLOADED_EACH:
            return 429, "too many files were sent from your address in the last hour: try again later"
        self._uploads.append((now, length, address))
        return None

    async def _of_agent(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A call by the Model Context Protocol. Gradio makes a request of its own of it, in one session for all agents:
        headers say from which address it comes, and by which name to ask whether the agent still waits.
        """
        address, name = address_in(scope), secrets.token_hex(16)
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
                await refuse(receive, send, 429, "too many calls at once: wait for the answers")
                return
            self._presence.came(session)
            try:
                await self._bounded(marked, watched, send)
            finally:
                leave()

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request whose body arrives in time and is not too large, whether it says its length or not."""
        if length_of(scope) > _MOST_BYTES:
            await refuse(receive, send, 413, "the request is too large")
            return
        if scope["method"] in ("GET", "HEAD"):
            await self._in_turn(scope, receive, send)
            return
        if dict(scope["headers"]).get(b"content-type", b"").lower().startswith(b"multipart/"):
            await refuse(receive, send, 415, "send JSON")
            return
        with self._held.growing(address_in(scope)) as more:
            try:
                async with asyncio.timeout(_BODY_SECONDS):
                    body = await body_of(receive, _MOST_BYTES, more)
            except TimeoutError:
                await refuse(receive, send, 408, _TOO_LATE)
                return
            except TooMuchError as error:
                await refuse(receive, send, *error.args)
                return
            if body is None:
                return  # its client is gone
            if (refusal := await self._refused_body(scope, body)) is not None:
                await answer(send, *refusal)
            else:
                await self._in_turn(scope, replayed(body, receive), send)

    async def _in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a whole request; what is answered at once has few turns of an address, so that others have theirs."""
        async with self._turns.one(address_in(scope) if _AT_ONCE.search(scope["path"]) else ""):
            await self._app(scope, receive, send)

    async def _refused_body(self, scope: Scope, body: bytes) -> tuple[int, str] | None:
        try:
            asked = parsed(body)  # as gradio will read it
        except ValueError:
            return None  # gradio says what is wrong with it
        if not isinstance(asked, dict):
            return None
        session = asked.get("session_hash")
        if isinstance(session, str) and len(session) > _LONGEST_NAME:
            return 400, _LONG_NAME
        if (joined := _JOINING.search(scope["path"])) is None:
            return None
        number = asked.get("fn_index")
        function = joined["name"] or (number if isinstance(number, int) else None)
        if function is None:
            return 400, "fn_index must be a whole number"  # gradio would read others, such as "7", as one
        if not self._mail.is_queued(function):
            return 400, "that answers at once: ask for it without the queue"
        if time.monotonic() - self._forgot > _FORGET_SECONDS:
            self._forgot = time.monotonic()
            self._mail.forget_absent()
        if isinstance(session, str) and not await self._is_read(session):
            return 429, "answers to earlier requests wait: read them first"
        if not await self._joins.one(address_in(scope)):
            return 429, "too many requests from your address: wait for the answers"
        return None

    async def _is_read(self, session: str) -> bool:
        """Whether few answers wait for a session. Where somebody listens, they have a while to come to that: a program
        may ask for a hundred things at once, and read as fast as it can.
        """
        end = time.monotonic() + _READ_SECONDS
        while self._mail.unread(session) > _MOST_UNREAD:
            if not self._presence.listens(session) or time.monotonic() > end:
                return False
            await asyncio.sleep(_LOOK_SECONDS)
        return True


_LONG_NAME = f"names of sessions and uploads have at most {_LONGEST_NAME} characters"
_MANY_PAGES = "too many pages are open at once: close some"
_NO_FILES = "this app takes no files"
_TOO_LATE = "the request takes too long to arrive"
