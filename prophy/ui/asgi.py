"""One HTTP request as the server hands it on: what it says of itself, its body, and a refusal."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import parse_qs

from starlette.types import Message, Receive, Scope, Send

from prophy.ui.engine.visitors import address_of

_HEARD_BYTES, _HEARD_SECONDS = 2**23, 5.0  # of a request that is refused


class TooLateError(Exception):
    """An upload does not arrive in time."""


class TooMuchError(Exception):
    """A body that is not heard to its end: the status, and why in words."""


def forwarded_in_one(scope: Scope) -> Scope:
    """A request whose several headers of forwarding are one, as they mean (RFC 9110, section 5.3): some proxies add a
    line of their own behind the visitor's, and who reads one line alone reads what the visitor wrote.
    """
    lines = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
    if len(lines) < 2:
        return scope
    others = [(name, value) for name, value in scope["headers"] if name != b"x-forwarded-for"]
    return {**scope, "headers": [*others, (b"x-forwarded-for", b", ".join(lines))]}


def asked_for(scope: Scope, name: str) -> str | None:
    """A parameter of a request's address, the last of its name, as gradio reads it."""
    return (parse_qs(scope.get("query_string", b"").decode("latin-1")).get(name) or [None])[-1]


def address_in(scope: Scope) -> str:
    """The address that a request's visitor is counted by, see :func:`prophy.ui.engine.visitors.address_of`."""
    client, forwarded = scope.get("client"), dict(scope["headers"]).get(b"x-forwarded-for")
    return address_of(client[0] if client else None, None if forwarded is None else forwarded.decode("latin-1"))


def length_of(scope: Scope) -> int:
    """The length that a request says; 0 if it says none."""
    said = dict(scope["headers"]).get(b"content-length", b"0")
    return int(said) if said.isdigit() and len(said) < 16 else 0


def in_time(receive: Receive, seconds: float) -> Receive:
    """A request's messages until so many seconds from now; later, whoever waits for one has a :class:`TooLateError`.

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
            raise TooLateError from None
        whole = not message.get("more_body", False)
        return message

    return timed


async def body_of(receive: Receive, most_bytes: int, may_hold: Callable[[int], bool]) -> bytes | None:
    """A request's body; None if its client is gone.

    Args:
        receive: the request's messages.
        most_bytes: of the body.
        may_hold: is asked for so many bytes more, as they arrive.

    Raises:
        TooMuchError: it is larger, or may not be held.
    """
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        piece, more = message.get("body", b""), message.get("more_body", False)
        if len(body) + len(piece) > most_bytes:
            raise TooMuchError(413, "the request is too large")
        if not may_hold(len(piece)):
            raise TooMuchError(503, "too many requests at once: try again in a moment")
        body += piece
    return bytes(body)


def replayed(body: bytes, receive: Receive) -> Receive:
    """A request's messages with its body, which has been taken in, first."""
    first = True

    async def again() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return again


async def refuse(receive: Receive, send: Send, status: int, why: str) -> None:
    """Answer after what is on its way: a client that sends before it reads would only see a broken connection."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_HEARD_SECONDS):
            heard, message = 0, await receive()
            while message.get("more_body") and heard < _HEARD_BYTES:
                heard += len(message.get("body", b""))
                message = await receive()
    await answer(send, status, why)


async def answer(send: Send, status: int, why: str) -> None:
    """Answer a request whose body was heard, as gradio words what it refuses."""
    body = json.dumps({"detail": why}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
