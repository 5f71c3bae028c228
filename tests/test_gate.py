"""Hostile visitors before gradio's routes: what they hold open, leave unread, make the server fetch, write or keep."""

import asyncio
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import gradio as gr
import httpx
import pytest
from chromium import free_port
from gradio_client import Client
from starlette.requests import Request as StarletteRequest
from synthetic import make_frames, make_record, make_trace
from test_limits import job

from prophy.generation.generate import GenerationStopped
from prophy.runs.store import write_run
from prophy.ui import gate, page
from prophy.ui.controls.visit import visitor_of
from prophy.ui.engine import presence
from prophy.ui.engine.counted import Counted, Pace, Turns
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.line import Waiting
from prophy.ui.engine.presence import Presence
from prophy.ui.engine.request import Request
from prophy.ui.engine.visitors import AGENT
from prophy.ui.page import Page, build_demo, launch

pytestmark = pytest.mark.alone
PROMPT = "a red ball bounces"
REMOTE = {"path": "http://198.51.100.7/large.bin", "meta": {"_type": "gradio.FileData"}}
HAS_MCP = find_spec("mcp") is not None


class Visitors:
    """Of an app over HTTP, each request in a connection of its own."""

    def __init__(self, demo: Page, address: str) -> None:
        self.demo, self.address, self.port = demo, address, int(address.rsplit(":", 1)[1])
        self.client = httpx.Client(timeout=30, limits=httpx.Limits(max_keepalive_connections=0))
        self.number = {fn.api_name: index for index, fn in demo.fns.items() if fn.api_name}

    def post(self, route: str, headers: dict | None = None, **body: object) -> httpx.Response:
        return self.client.post(f"{self.address}/gradio_api/{route}", json=body, headers=headers)

    def get(self, route: str) -> httpx.Response:
        return self.client.get(f"{self.address}/{route}")

    def join(self, name: str, data: list, session: str) -> httpx.Response:
        return self.post("queue/join", fn_index=self.number[name], data=data, session_hash=session)

    def send(self, head: str) -> socket.socket:
        """A connection on which so much was sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sendall(head.encode())
        return connection


@pytest.fixture
def visitors(tiny_pipeline, tmp_path: Path, monkeypatch) -> Iterator[Visitors]:
    monkeypatch.setattr(presence, "GRACE_SECONDS", 3.0)
    write_run(tmp_path / "gallery", make_record(), make_frames(), trace=make_trace(), run_id="shipped")
    engine = Engine(runs=tmp_path / "runs", gallery=tmp_path / "gallery", open_pipeline=lambda *_: tiny_pipeline)
    engine.warm_up()
    demo = build_demo(engine)
    found = Visitors(demo, launch(demo, port=free_port(), mcp=HAS_MCP).rstrip("/"))
    yield found
    found.client.close()
    demo.close(verbose=False)


NOT_OFFERED = (
    "deep_link?session_hash=a",  # writes a file for each state of a session
    "process_recording",
    "proxy=http://198.51.100.7/x",
    "file=http://198.51.100.7/x",
    "file/HTTPS://198.51.100.7/x",
    "stream/x",
    "vibe-edit",
    "dev/reload",
)


def test_routes_that_the_page_does_not_need_are_not_offered(visitors: Visitors):
    for route in NOT_OFFERED:
        for method in ("GET", "POST"):
            answer = visitors.client.request(method, f"{visitors.address}/gradio_api/{route}")
            assert (answer.status_code, answer.json()) == (404, {"detail": "this app does not offer that"}), route


def test_what_answers_at_once_is_not_asked_for_through_the_queue_nor_generations_past_it(visitors: Visitors):
    joined = visitors.join("_on_load", [""], "a")
    named = visitors.post("call/_on_load", data=[""])
    assert {joined.status_code, named.status_code} == {400}
    number = visitors.number["_on_load"]
    for same in (str(number), float(number), f" {number} "):  # gradio takes each for the number
        assert visitors.post("queue/join", fn_index=same, data=[""], session_hash="a").status_code == 400
    shown = Client(visitors.address, verbose=False).predict(api_name="/list_gallery")
    assert [run["run"] for run in shown] == ["shipped"]
    assert visitors.post("run/generate", data=[PROMPT, 0, 1, -1.0, True, {}, "", "", {}, False]).status_code == 404
    assert visitors.post("run/predict", fn_index=visitors.number["_on_load"], data=[""]).status_code == 200


def test_no_input_makes_the_server_fetch_a_file(visitors: Visitors, monkeypatch):
    import gradio.processing_utils

    fetched = []

    async def fetch(url: str, *_: object) -> str:
        fetched.append(url)
        raise OSError("no network")

    for name in ("async_ssrf_protected_download", "ssrf_protected_download"):
        monkeypatch.setattr(gradio.processing_utils, name, fetch)
    visitors.join("generate", [PROMPT, 0, 1, -1.0, True, {"x": [REMOTE]}, "", "", {}, False], "a")
    said = visitors.get("gradio_api/queue/data?session_hash=a").text
    assert "files of other machines are not fetched" in said
    assert fetched == []


def test_a_session_s_name_is_short(visitors: Visitors):
    long = "h" * 3000  # gradio keeps it in several tables
    data = ["shipped", 0, 0, 0, 0]
    begin = time.monotonic()
    assert visitors.join("inspect_token", data, long).status_code == 400
    assert time.monotonic() - begin < 4, "a refusal waits for nothing"
    body = {"fn_index": visitors.number["inspect_token"], "data": ["\ud800"], "session_hash": long}
    for encoding in ("ascii", "utf-16"):  # which Python reads, too
        raw = json.dumps(body).encode(encoding)
        kind = {"Content-Type": "application/json"}
        url = f"{visitors.address}/gradio_api/queue/join"
        assert visitors.client.post(url, content=raw, headers=kind).status_code == 400, encoding
    assert visitors.get(f"gradio_api/heartbeat/{long}").status_code == 400
    assert visitors.get(f"gradio_api/queue/data?session_hash={long}").status_code == 400
    assert visitors.join("inspect_token", data, "h" * 11).status_code == 200


def test_answers_that_nobody_reads_are_bounded_and_thrown_away(visitors: Visitors, monkeypatch):
    monkeypatch.setattr(page, "_MAIL_SECONDS", 1.0)
    monkeypatch.setattr(gate, "_FORGET_SECONDS", 0.1)
    statuses = [visitors.join("inspect_token", ["shipped", 0, 0, 0, 0], "mute").status_code for _ in range(80)]
    end = time.monotonic() + 20
    while visitors.demo._queue.event_ids_to_events and time.monotonic() < end:
        time.sleep(0.1)
    last = visitors.join("inspect_token", ["shipped", 0, 0, 0, 0], "mute")
    assert 429 in [*statuses, last.status_code]
    assert visitors.join("inspect_token", ["shipped", 0, 0, 0, 0], "other").status_code == 200, "it is one session's"
    while "mute" in visitors.demo._queue.pending_messages_per_session and time.monotonic() < end:
        visitors.join("inspect_token", ["none", 0, 0, 0, 0], "other")
        visitors.get("gradio_api/queue/data?session_hash=other")
        time.sleep(0.3)
    assert not {"mute"} & {
        *visitors.demo._queue.pending_messages_per_session,
        *visitors.demo._queue.pending_event_ids_session,
    }


def test_a_program_that_asks_for_much_at_once_and_reads_is_not_refused(visitors: Visitors):
    client = Client(visitors.address, verbose=False)
    asked = [client.submit(api_name="/list_gallery") for _ in range(150)]
    assert [len(job.result(timeout=60)) for job in asked] == [1] * 150


def test_whoever_listens_and_does_not_read_is_refused_after_a_while(monkeypatch):
    monkeypatch.setattr(gate, "_READ_SECONDS", 0.3)
    watching, waiting = Presence(), [gate._MOST_UNREAD + 1]

    class Mail:
        def unread(self, session: str) -> int:
            return waiting[0]

    one = gate.Gate(None, watching, 0, Mail())  # type: ignore[arg-type]
    begin = time.monotonic()
    assert not asyncio.run(one._is_read("a"))
    assert time.monotonic() - begin < 0.2, "nobody listens"
    watching.came("a")
    assert not asyncio.run(one._is_read("a"))
    assert time.monotonic() - begin > 0.3
    waiting[0] = 0
    assert asyncio.run(one._is_read("a"))


def test_a_body_that_does_not_arrive_is_not_waited_for(visitors: Visitors, monkeypatch):
    monkeypatch.setattr(gate, "_BODY_SECONDS", 1.0)
    kind = "Content-Type: application/json\r\nContent-Length: 999\r\n\r\n{"
    head = f"POST /gradio_api/queue/join HTTP/1.1\r\nHost: x\r\n{kind}"
    begin = time.monotonic()
    with closing(visitors.send(head)) as connection:
        assert connection.recv(12) == b"HTTP/1.1 408"
    assert time.monotonic() - begin < 15


def test_bodies_that_one_address_holds_back_leave_room_for_others(visitors: Visitors):
    each = gate._HELD_EACH // 16  # as much as a request may be
    kind = f"Content-Type: application/json\r\nContent-Length: {each}\r\nX-Forwarded-For: 8.8.4.4\r\n\r\n"
    whole = f"POST /gradio_api/queue/join HTTP/1.1\r\nHost: x\r\n{kind}{'x' * (each - 1)}"
    held = [visitors.send(whole) for _ in range(16)]
    end = time.monotonic() + 20
    asked = {"fn_index": visitors.number["_on_load"], "data": ["x" * 99]}
    while time.monotonic() < end:
        if visitors.post("run/predict", {"X-Forwarded-For": "8.8.4.4"}, **asked).status_code == 503:
            break
        time.sleep(0.1)
    else:
        pytest.fail("one address may hold back bodies without end")
    assert visitors.post("run/predict", {"X-Forwarded-For": "1.1.1.1"}, **asked).status_code == 200
    for connection in held:
        connection.close()


def test_streams_of_one_address_and_of_all_are_bounded_and_others_are_served(visitors: Visitors):
    def stream(number: int, address: str) -> socket.socket:
        forwarded = f"X-Forwarded-For: {address}\r\n"
        return visitors.send(f"GET /gradio_api/heartbeat/s{number} HTTP/1.1\r\nHost: x\r\n{forwarded}\r\n")

    held = [stream(i, "203.0.113.7") for i in range(gate._STREAMS_EACH)]
    first = [connection.recv(12) for connection in held]
    assert set(first) == {b"HTTP/1.1 200"}
    with closing(stream(99, "203.0.113.7")) as one_more, closing(stream(98, "203.0.113.8")) as other:
        assert one_more.recv(12) == b"HTTP/1.1 429"
        assert other.recv(12) == b"HTTP/1.1 200"
    assert visitors.get("").status_code == 200
    for connection in held:
        connection.close()
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with closing(stream(97, "203.0.113.7")) as again:
            if again.recv(12) == b"HTTP/1.1 200":
                return
        time.sleep(0.2)
    pytest.fail("streams that were closed still count")


def test_a_stream_that_closes_builds_no_page_and_ends_what_its_page_asked_for(visitors: Visitors):
    engine = visitors.demo.engine
    held = [visitors.send(f"GET /gradio_api/heartbeat/s{i} HTTP/1.1\r\nHost: x\r\n\r\n") for i in range(20)]
    for connection in held:
        assert connection.recv(12) == b"HTTP/1.1 200"
    first = job(engine.card(), "first")
    engine._line.join(first)
    assert engine._line.wait(first)
    asked = engine.generate(Request(PROMPT), "s0", is_here=lambda: engine.presence.is_here("s0"))
    assert isinstance(next(asked), Waiting)
    assert engine.is_generating("s0")
    for connection in held:
        connection.close()
    with pytest.raises(GenerationStopped):
        list(asked)
    engine._line.leave(first)
    end = time.monotonic() + 20
    while any(engine.presence.listens(f"s{i}") for i in range(20)) and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(0.5)
    assert not visitors.demo.app.state_holder.session_data


def test_no_form_but_an_upload_is_taken(visitors: Visitors):
    answer = visitors.client.post(
        f"{visitors.address}/gradio_api/component_server", files={"files": ("a.txt", b"x")}, data={"component_id": "1"}
    )
    assert answer.status_code == 415


def test_progress_of_uploads_is_not_told_where_none_is_taken(visitors: Visitors):
    from gradio.routes import file_upload_statuses

    assert visitors.get("gradio_api/upload_progress?upload_id=x").status_code == 403
    assert "x" not in file_upload_statuses._signals


# --- its parts --------------------------------------------------------------------------------------------------------


def test_presence_remembers_so_many_that_left(monkeypatch):
    monkeypatch.setattr(presence, "_MOST_REMEMBERED", 50)
    seen = Presence()
    seen.is_watched = True
    for number in range(500):
        seen.came(f"a {number}")
        seen.went(f"a {number}")
        seen.is_here(f"b {number}")
    assert len(seen._last) <= 50
    assert seen.is_here("a 499")


def test_what_is_counted_is_forgotten_with_its_last():
    counted = Counted(each=2, total=3)
    with (
        counted.one("a") as first,
        counted.one("a") as second,
        counted.one("a") as third,
        counted.one("b") as other,
    ):
        assert (first, second, third, other) == (True, True, False, True)
        with counted.one("c") as more, counted.one("") as nobody:
            assert (more, nobody) == (False, False)
    assert len(counted) == 0
    assert not counted._taken
    with counted.one(""), counted.one(""), counted.one("") as third:
        assert third, "without an address only all together are bounded"
    with counted.growing("a") as ours, counted.growing("b") as theirs:
        assert [ours(1), ours(1), ours(1), theirs(2), theirs(1)] == [True, True, False, False, True]
    assert not counted._taken


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
def test_the_app_holds_as_many_connections_as_the_system_allows():
    import resource
    import subprocess

    code = (
        "import resource; most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))\n"
        "from prophy.ui import cli; cli._allow_many_connections()\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] == most)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert said.stdout.strip() == "True"
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 0


# --- agents -----------------------------------------------------------------------------------------------------------


def test_of_what_is_answered_at_once_one_address_waits_for_its_own_turns():
    async def tried() -> tuple[int, list[str]]:
        turns, done, most = Turns(2), [], 0
        inside, go = 0, asyncio.Event()

        async def ask(address: str) -> None:
            nonlocal inside, most
            async with turns.one(address):
                inside += address == "a"
                most = max(most, inside)
                if address == "a":
                    await go.wait()
                inside -= address == "a"
                done.append(address)

        many = [asyncio.create_task(ask("a")) for _ in range(9)]
        await asyncio.sleep(0)
        many[-1].cancel()  # one that hung up while it waited
        await asyncio.gather(ask("b"), ask(""))
        go.set()
        await asyncio.gather(*many, return_exceptions=True)
        assert not turns._free
        assert not turns._wanted
        return most, done

    most, done = asyncio.run(tried())
    assert most == 2
    assert sorted(done[:2]) == ["", "b"], "others do not wait"
    assert done[2:] == ["a"] * 8


def test_one_address_begins_so_much_a_second_and_others_do_not_wait():
    async def tried() -> tuple[list[float], list[bool]]:
        pace, begin, begun = Pace(3, 10, 0.35), time.monotonic(), []

        async def ask(address: str) -> bool:
            may = await pace.one(address)
            begun.append(time.monotonic() - begin)
            return may

        others = asyncio.gather(*(ask(address) for address in ("b", "", "", "", "", "")))
        may = await asyncio.gather(*(ask("a") for _ in range(7)))
        assert all(await others)
        assert set(pace._due) <= {"a", "b"}
        await asyncio.sleep(0.4)
        await pace.one("b")
        assert set(pace._due) == {"b"}, "what is over is forgotten"
        return sorted(begun), may

    begun, may = asyncio.run(tried())
    assert may == [True] * 6 + [False], "the last would wait too long"
    assert sum(at < 0.09 for at in begun) == 10, "three of a, all of the others, and the refused one"
    assert begun[-1] > 0.29


def test_who_asks_without_pause_is_slowed_down_and_others_are_not(visitors: Visitors):
    def ask(address: str, count: int) -> float:
        begin = time.monotonic()
        for i in range(count):
            body = {"fn_index": visitors.number["inspect_token"], "data": ["shipped", 0, 0, 0, 0]}
            asked = visitors.post("queue/join", {"X-Forwarded-For": address}, session_hash=f"{address} {i}", **body)
            assert asked.status_code == 200
        return time.monotonic() - begin

    most = gate._JOINS_AT_ONCE + 8
    assert ask("8.8.4.4", most) >= 7 / gate._JOINS_A_SECOND
    assert ask("1.1.1.1", 1) < 1


def test_a_session_is_not_described_anew(visitors: Visitors):
    """Gradio would, component by component, for links that are not offered."""
    state = visitors.demo.state_holder["new"]
    assert state.blocks_config.blocks == visitors.demo.blocks
    assert list(state.components) == []


def passed(app, scope: dict, messages: list[dict], most_upload: int = 0) -> tuple[gate.Gate, list[dict]]:
    """A gate, and what it sends for a request whose messages arrive at once, and then no more."""
    sent, arriving = [], iter(messages)

    async def receive() -> dict:
        for message in arriving:
            return message
        await asyncio.sleep(60)
        raise AssertionError("it waits without end")

    async def send(message: dict) -> None:
        sent.append(message)

    one = gate.Gate(app, Presence(), most_upload, None)  # type: ignore[arg-type]
    asyncio.run(one(scope, receive, send))
    return one, sent


def test_forwarding_in_several_lines_is_read_as_one():
    """Of which the first is what the visitor wrote: gradio gives the first line alone, others the last."""
    seen: list[StarletteRequest] = []

    async def app(scope, receive, send) -> None:
        seen.append(StarletteRequest(scope))

    lines = [(b"x-forwarded-for", b"1.1.1.1"), (b"host", b"x"), (b"x-forwarded-for", b"8.8.4.4")]
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "query_string": b"",
        "headers": lines,
        "client": ("10.0.0.1", 1),
    }
    passed(app, scope, [])
    assert seen[0].headers["x-forwarded-for"] == "1.1.1.1, 8.8.4.4"
    assert visitor_of(gr.Request(seen[0])).address == "8.8.4.4"


def upload(address: str, length: int, upload_id: str = "u") -> dict:
    headers = [(b"content-length", str(length).encode()), (b"x-forwarded-for", address.encode())]
    query = f"upload_id={upload_id}".encode()
    return {"type": "http", "method": "POST", "path": "/gradio_api/upload", "query_string": query, "headers": headers}


def test_uploads_of_one_address_leave_room_for_others_and_late_ones_are_told(monkeypatch):
    taken: list[str] = []

    async def app(scope, receive, send) -> None:
        taken.append(scope["path"])
        while (await receive()).get("more_body"):
            pass

    size = 2**26
    whole, half = ({"type": "http.request", "body": b"x", "more_body": more} for more in (False, True))
    monkeypatch.setattr(gate, "_UPLOADED_EACH", size)
    one, sent = passed(app, upload("8.8.4.4", size), [whole], most_upload=size)
    assert (len(taken), sent) == (1, [])
    assert one._refused_upload(upload("8.8.4.4", 1)) == (
        429,
        "too many files were sent from your address in the last hour: try again later",
    )
    assert one._refused_upload(upload("1.1.1.1", size)) is None
    assert one._refused_upload(upload("1.1.1.1", 1, "u" * 101)) == (400, gate._LONG_NAME)
    monkeypatch.setattr(gate, "_BODY_SECONDS", 0.1)
    _, sent = passed(app, upload("8.8.4.4", 9), [half], most_upload=size)
    assert [message.get("status") for message in sent] == [408, None]
    assert b"too long to arrive" in sent[1]["body"]


def call_of(scope_headers: list[tuple[bytes, bytes]], client: str) -> tuple[dict[bytes, bytes], Presence, list[bool]]:
    """The headers that gradio sees of an agent's call, and whether it was awaited before and after it hung up."""
    seen, awaited = {}, []
    watching = Presence()

    async def app(scope, receive, send) -> None:
        seen.update(scope["headers"])
        name = f"agent {seen[AGENT.encode()].decode()}"
        await receive()
        awaited.append(watching.listens(name))
        assert (await receive())["type"] == "http.disconnect"
        awaited.append(watching.listens(name))

    messages = iter([{"type": "http.request", "body": b"{}", "more_body": False}, {"type": "http.disconnect"}])

    async def receive() -> dict:
        return next(messages)

    async def send(message: dict) -> None:
        raise AssertionError("nothing is refused here")

    scope = {"type": "http", "method": "POST", "path": "/gradio_api/mcp/", "query_string": b""}
    scope |= {"headers": scope_headers, "client": (client, 1)}
    asyncio.run(gate.Gate(app, watching, 0, None)(scope, receive, send))  # type: ignore[arg-type]
    return seen, watching, awaited


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.9", None, None),  # of an example's network, which is nobody's on the internet
        ("8.8.4.4", None, b"8.8.4.4"),
        ("10.0.0.1", b"10.0.0.9", b"10.0.0.9"),
        ("8.8.4.4", b"1.1.1.1", b"8.8.4.4"),
        ("127.0.0.1", None, None),
    ],
)
def test_an_agent_s_call_says_whose_it_is_whatever_it_says_itself(peer: str, forwarded: bytes | None, address):
    own = [(AGENT.encode(), b"forged"), (b"host", b"x")]
    own += [] if forwarded is None else [(b"x-forwarded-for", forwarded)]
    seen, watching, awaited = call_of(own, peer)
    assert seen[AGENT.encode()] != b"forged"
    assert seen[b"host"] == b"x"
    assert seen.get(b"x-forwarded-for") == (address or (b"203.0.113.9" if peer == "203.0.113.9" else None))
    assert awaited == [True, False], "a call whose agent hung up is awaited no more"
    assert not watching._open


def test_agents_of_one_address_are_one_visitor():
    class Visit:
        client, session_hash = None, "shared by all agents"

        def __init__(self, **headers: str) -> None:
            self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    one, other = (Visit(x_prophy_agent=name, x_forwarded_for="8.8.4.4") for name in "ab")
    assert visitor_of(one) == visitor_of(other)
    assert visitor_of(one) != visitor_of(Visit(x_prophy_agent="c", x_forwarded_for="1.1.1.1"))
    assert visitor_of(Visit(x_forwarded_for="8.8.4.4")).session == "shared by all agents"


def tool(visitors: Visitors, name: str, arguments: dict, address: str) -> httpx.Response:
    """A call as an agent's client makes it."""
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}
    headers = {"Accept": "application/json, text/event-stream", "X-Forwarded-For": address}
    with httpx.Client(timeout=60) as client:
        return client.post(f"{visitors.address}/gradio_api/mcp/", json=body, headers=headers)


@pytest.mark.skipif(not HAS_MCP, reason="the package mcp is not installed")
def test_a_flood_of_agents_has_the_limits_of_one_visitor_and_delays_nobody_else(visitors: Visitors):
    answers: list[httpx.Response] = []
    asked = {"prompt": PROMPT, "steps": visitors.demo.engine.limits.steps}
    flood = [
        threading.Thread(
            target=lambda seed=seed: answers.append(tool(visitors, "generate", {**asked, "seed": seed}, "8.8.4.4"))
        )
        for seed in range(24)
    ]
    for thread in flood:
        thread.start()
    end = time.monotonic() + 20
    while not visitors.demo.engine.ahead and time.monotonic() < end:
        time.sleep(0.05)
    assert 0 < visitors.demo.engine.ahead <= visitors.demo.engine.limits.session
    begin = time.monotonic()
    assert visitors.get("").status_code == 200
    assert visitors.post("run/predict", fn_index=visitors.number["_on_load"], data=[""]).status_code == 200
    assert time.monotonic() - begin < 8, "the page waits behind agents"
    other = tool(visitors, "generate", {"prompt": PROMPT, "steps": 1}, "1.1.1.1").text
    assert "finished" in other
    for thread in flood:
        thread.join(timeout=60)
    texts = [answer.text for answer in answers if answer.status_code == 200]
    assert any("as many as one visitor may" in text for text in texts)
    assert {answer.status_code for answer in answers} <= {200, 429}


@pytest.mark.skipif(not HAS_MCP, reason="the package mcp is not installed")
def test_a_generation_whose_agent_hung_up_is_dropped(visitors: Visitors, monkeypatch):
    monkeypatch.setattr(presence, "GRACE_SECONDS", 0.3)
    arguments = {"prompt": PROMPT, "steps": visitors.demo.engine.limits.steps}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "generate", "arguments": arguments}}
    raw = json.dumps(body)
    head = f"POST /gradio_api/mcp/ HTTP/1.1\r\nHost: 127.0.0.1:{visitors.port}\r\nContent-Type: application/json\r\n"
    head += f"Accept: application/json, text/event-stream\r\nContent-Length: {len(raw)}\r\n\r\n{raw}"
    engine = visitors.demo.engine
    first = job(engine.card(), "first")
    engine._line.join(first)
    assert engine._line.wait(first)
    connection = visitors.send(head)
    end = time.monotonic() + 20
    while engine.ahead < 2 and time.monotonic() < end:
        time.sleep(0.05)
    assert engine.ahead == 2
    connection.close()
    while engine.ahead > 1 and time.monotonic() < end:
        time.sleep(0.05)
    assert engine.ahead == 1, "a generation that no agent waits for still stands in the line"
    engine._line.leave(first)
