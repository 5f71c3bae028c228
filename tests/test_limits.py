"""One visitor cannot block the app: the line before the model, bounded work in parallel, and the gate before gradio."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from chromium import free_port
from gradio_client import Client
from gradio_client.exceptions import AppError
from synthetic import make_frames, make_record, make_trace

from prophy.generation.generate import GenerationStopped, StepPreview
from prophy.runs.store import list_runs, write_run
from prophy.ui.engine import presence
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.errors import EngineError
from prophy.ui.engine.events import Finished, Started
from prophy.ui.engine.line import Job, Line, LineLimits, Visitor, Waiting
from prophy.ui.engine.presence import Presence
from prophy.ui.engine.request import Request
from prophy.ui.engine.slots import Slots
from prophy.ui.engine.visitors import address_of

pytestmark = pytest.mark.alone
PROMPT = "a red ball bounces"


def job(card, session: str, address: str = "", steps: int = 20, is_here=lambda: True) -> Job:
    return Job(PROMPT, card, "auto", True, "", steps, True, Visitor(session, address), is_here)


@pytest.fixture
def card(tmp_path: Path):
    return Engine(runs=tmp_path / "runs", gallery=tmp_path / "gallery").card()


# --- the line ---------------------------------------------------------------------------------------------------------


def served(line: Line, first: Job, others: list[Job]) -> list[Job]:
    """Let ``first`` have its turn, the others join behind it, and say in which order they come."""
    line.join(first)
    return served_after(line, first, others)


def served_after(line: Line, first: Job, others: list[Job]) -> list[Job]:
    """The same of one that stands in the line already."""
    assert line.wait(first)
    order, threads = [], []

    def take(one: Job) -> None:
        if line.wait(one):
            order.append(one)
            line.leave(one)

    for one in others:
        line.join(one)
        threads.append(threading.Thread(target=take, args=(one,)))
        threads[-1].start()
    line.leave(first)
    for thread in threads:
        thread.join(timeout=20)
    return order


def test_visitors_take_turns_and_who_asks_for_much_waits_for_his_own(card):
    line = Line(LineLimits(session=9), lambda job: None)
    greedy = [job(card, "greedy", steps=50) for _ in range(4)]
    modest = [job(card, f"modest {i}") for i in range(3)]
    again = [job(card, f"modest {i}") for i in range(3)]
    assert served(line, greedy[0], [*greedy[1:], *modest, *again]) == [*modest, *again, *greedy[1:]]


def test_first_jobs_are_first_come_first_served(card):
    line = Line(LineLimits(), lambda job: None)
    jobs = [job(card, str(i), steps=steps) for i, steps in enumerate((20, 50, 1, 30))]
    assert served(line, jobs[0], jobs[1:]) == jobs[1:]


def test_many_sessions_of_one_address_take_one_visitor_s_turns(card):
    line = Line(LineLimits(), lambda job: None)
    many = [job(card, f"tab {i}", "192.0.2.1") for i in range(4)]
    other = job(card, "other", "192.0.2.2")
    assert served(line, many[0], [*many[1:], other])[0] is other


def test_a_job_that_never_had_its_turn_costs_nothing(card):
    line = Line(LineLimits(session=4), lambda job: None)
    first, dropped, mine, theirs = (job(card, name) for name in ("a", "b", "b", "c"))
    line.join(first)
    assert line.wait(first)
    line.join(dropped)
    dropped.stop.set()
    assert not line.wait(dropped)
    line.leave(dropped)
    line.join(mine)
    line.join(theirs)
    line.leave(first)
    assert line.wait(mine)


def test_jobs_that_leave_the_line_bring_their_visitor_no_turn_forward(card):
    """The flood's last job has a turn once those before it are dropped; what it asks for next has its full wait."""
    line = Line(LineLimits(session=9), lambda job: None)
    first, *dropped, last = (job(card, "flood") for _ in range(5))
    for one in (first, *dropped, last):
        line.join(one)
    assert line.wait(first)
    for one in dropped:
        one.stop.set()
        assert not line.wait(one)
        line.leave(one)
    line.leave(first)
    others = [job(card, "flood"), job(card, "honest", steps=19), job(card, "honest", steps=1)]
    assert served_after(line, last, others) == [*others[1:], others[0]]


def test_a_guided_step_counts_twice(card):
    line = Line(LineLimits(), lambda job: None)
    first, second, third, fourth = (job(card, name) for name in ("a", "a", "b", "b"))
    first.guided = False
    assert served(line, first, [third, fourth, second]) == [third, second, fourth]


def test_the_next_clip_of_who_asked_for_several_gives_way_once_to_those_who_come(card):
    line = Line(LineLimits(session=9), lambda job: None)
    first, second, third = (job(card, "greedy") for _ in range(3))
    for one in (first, second, third):
        line.join(one)
    assert line.wait(first)
    assert not line.gives_way(first, 0.1), "it waited behind none of his own"
    line.leave(first)
    assert line.wait(second)
    assert not line.gives_way(second, 0.1), "nobody else waits"
    come = [job(card, f"new {i}") for i in range(2)]
    for one in come:
        line.join(one)
    assert not line.gives_way(second, 0.5), "half of it would be lost"
    assert line.gives_way(second, 0.4)
    assert not line.gives_way(second, 0.4)
    order = []

    def take(one: Job) -> None:
        assert line.wait(one)
        order.append(one)
        line.leave(one)

    threads = [threading.Thread(target=take, args=(one,)) for one in (second, third, *come)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert order == [*come, second, third]


def test_newcomers_without_end_keep_nobody_waiting_for_ever(card):
    line = Line(LineLimits(), lambda job: None)
    running, second = job(card, "a"), job(card, "a")
    line.join(running)
    line.join(second)
    assert line.wait(running)
    waiting, turns = [second], 0
    while running is not second:
        turns += 1
        assert turns < 8
        waiting.append(job(card, f"new {turns}"))
        line.join(waiting[-1])
        line.leave(running)
        running = next(one for one in waiting if not line._ahead(one))
        waiting.remove(running)
        assert line.wait(running)
    assert turns > 2, "those who have had less come first"
    line.leave(second)
    for one in waiting:
        assert line.wait(one)
        line.leave(one)
    assert line._served == {}, "of who is served and gone nothing is kept"


def test_who_has_waited_for_many_keeps_his_turn_before_newcomers(card):
    line = Line(LineLimits(), lambda job: None)
    first, *others, last = (job(card, f"visitor {i}") for i in range(8))
    for one in (first, *others, last):
        line.join(one)
    for one in (first, *others):
        assert line.wait(one)
        line.leave(one)
    new, dropped = job(card, "new"), job(card, "dropped")
    line.join(new)
    line.join(dropped)
    assert line.wait(last)
    line.leave(dropped)
    assert not line.gives_way(last, 0.1)


def test_who_asks_for_one_clip_after_the_other_keeps_his_turn(card):
    line = Line(LineLimits(), lambda job: None)
    for _ in range(2):
        mine, other = job(card, "mine"), job(card, "other")
        line.join(mine)
        assert line.wait(mine)
        line.join(other)
        assert not line.gives_way(mine, 0.1)
        line.leave(other)
        line.leave(mine)


def test_a_clip_that_gave_way_is_made_later_and_is_the_same(tiny_pipeline, tmp_path: Path):
    engine = Engine(runs=tmp_path / "runs", gallery=tmp_path / "gallery", open_pipeline=lambda *_: tiny_pipeline)
    done: list[str] = []
    kinds: list[type] = []

    def ask(name: str, visitor: Visitor, seed: int) -> threading.Thread:
        def follow() -> None:
            for event in engine.generate(Request(PROMPT, seed=seed, steps=50), name, visitor=visitor):
                if name == "second":
                    kinds.append(type(event))
                    if kinds.count(Started) == 1 and isinstance(event, StepPreview) and event.step == 1:
                        begun.set()
                if isinstance(event, Finished):
                    done.append(name)
                    frames[name] = event.run.clip().frames

        thread = threading.Thread(target=follow)
        thread.start()
        return thread

    begun, frames = threading.Event(), {}
    greedy, new = Visitor("a", "192.0.2.1"), Visitor("b", "192.0.2.2")
    threads = [ask("first", greedy, 1)]
    while not engine.ahead:
        time.sleep(0.01)
    threads.append(ask("second", greedy, 2))
    assert begun.wait(60)
    threads.append(ask("new", new, 2))
    for thread in threads:
        thread.join(60)
    assert done == ["first", "new", "second"]
    assert kinds.count(Started) == 2
    assert Waiting in kinds[kinds.index(StepPreview) :]
    assert (frames["second"] == frames["new"]).all()


def test_the_line_is_bounded_for_a_session_an_address_and_all(card):
    line = Line(LineLimits(session=2, address=3, total=4), lambda job: None)
    taken = [job(card, "a", "192.0.2.1"), job(card, "a", "192.0.2.1"), job(card, "b", "192.0.2.1"), job(card, "c")]
    line.join(taken[0])
    line.join(taken[1])
    with pytest.raises(EngineError, match="you have 2 clips waiting or being made"):
        line.join(job(card, "a", "192.0.2.1"))
    line.join(taken[2])
    with pytest.raises(EngineError, match="3 clips for your address"):
        line.join(job(card, "d", "192.0.2.1"))
    line.join(taken[3])
    with pytest.raises(EngineError, match="the line is full: 4 clips"):
        line.join(job(card, "e", "192.0.2.9"))
    line.leave(taken[0])
    line.join(job(card, "a", "192.0.2.1"))
    assert len(line) == 4, "who was refused does not stand in it"


def test_who_waits_is_told_how_many_come_first_and_how_long_they_take(card):
    line = Line(LineLimits(), lambda job: job.steps / 10)
    first, second, third = job(card, "a"), job(card, "b", steps=30), job(card, "c")
    line.join(first)
    assert line.wait(first)
    line.join(second)
    line.join(third)
    third.stop.set()
    waiter = threading.Thread(target=line.wait, args=(third,))
    third.stop.clear()
    waiter.start()
    told = third.events.listen().get(timeout=5)
    assert told.ahead == 2
    assert 4.5 < told.seconds <= 5.0, "20 steps of which nearly none are done, and 30"
    third.stop.set()
    waiter.join()


def test_a_generation_whose_client_is_gone_is_dropped_waiting_or_running(tiny_pipeline, tmp_path: Path):
    engine = Engine(runs=tmp_path / "runs", gallery=tmp_path / "gallery", open_pipeline=lambda *_: tiny_pipeline)
    here = {"a": True, "b": True}
    running = engine.generate(Request(PROMPT, steps=50), "a", is_here=lambda: here["a"])
    next(running)
    waiting = engine.generate(Request(PROMPT, steps=50), "b", is_here=lambda: here["b"])
    assert isinstance(next(waiting), Waiting)
    here["b"] = False
    with pytest.raises(GenerationStopped):
        list(waiting)
    here["a"] = False
    with pytest.raises(GenerationStopped):
        list(running)
    assert engine.ahead == 0
    assert list_runs(engine.runs.folder) == []


def test_a_clip_for_which_the_system_has_no_thread_stands_in_nobody_s_way(tiny_pipeline, tmp_path: Path):
    engine = Engine(runs=tmp_path, gallery=tmp_path, open_pipeline=lambda *_: tiny_pipeline)
    usual = threading.stack_size(2**47)  # more than a process can address
    try:
        with pytest.raises(EngineError, match="too much to do: try again"):
            next(engine.generate(Request(PROMPT, steps=1), "a"))
    finally:
        threading.stack_size(usual)
    assert engine.ahead == 0
    assert not engine.is_generating("a")
    *_, last = engine.generate(Request(PROMPT, steps=1), "a")
    assert isinstance(last, Finished)


def test_more_steps_than_the_app_makes_are_refused_for_everybody(tiny_pipeline, tmp_path: Path):
    engine = Engine(runs=tmp_path, gallery=tmp_path, open_pipeline=lambda *_: tiny_pipeline, limits=LineLimits(steps=8))
    with pytest.raises(EngineError, match="steps=9 are more than this app makes: use at most 8"):
        engine.check(Request(PROMPT, steps=9))
    assert engine.check(Request(PROMPT, steps=8)).steps == 8


# --- who asks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("127.0.0.1", None, ""),
        ("::1", "", ""),
        (None, None, ""),
        ("testclient", None, ""),
        ("8.8.4.4", None, "8.8.4.4"),
        ("8.8.4.4", "1.1.1.1", "8.8.4.4"),  # it stands before no proxy: the header is the visitor's own
        ("10.0.0.1", "9.9.9.9", "9.9.9.9"),
        ("10.0.0.1", "1.1.1.1, 9.9.9.9", "9.9.9.9"),  # the first is what the visitor wrote
        ("10.0.0.1", "1.1.1.1, 9.9.9.9, 10.0.0.7", "9.9.9.9"),
        ("10.0.0.1", "10.0.0.9", "10.0.0.9"),
        ("10.0.0.4", None, "10.0.0.4"),
        ("10.0.0.1", "<script>, , 2606:4700::1111", "2606:4700::/64"),
        ("2606:4700::1:0:0:7", None, "2606:4700::/64"),  # one connection has all of them
        ("2606:4700:0:1::7", None, "2606:4700:0:1::/64"),
        ("fd00::7", None, "fd00::7"),  # many machines share the network inside a house
        ("::ffff:8.8.4.4", None, "8.8.4.4"),
        ("::ffff:127.0.0.1", None, ""),
        ("127.0.0.1", "nonsense", ""),
    ],
)
def test_the_address_is_the_last_public_one_that_was_passed_on(peer: str | None, forwarded: str | None, address: str):
    assert address_of(peer, forwarded) == address


def test_presence_has_a_grace(monkeypatch):
    monkeypatch.setattr(presence, "GRACE_SECONDS", 0.2)
    seen = Presence()
    assert seen.is_here("nobody tells")
    seen.is_watched = True
    seen.came("a")
    seen.came("a")
    seen.went("a")
    assert seen.is_here("a")
    seen.went("a")
    assert seen.is_here("a")
    assert seen.is_here("never came")
    time.sleep(0.3)
    assert not seen.is_here("a")
    assert not seen.is_here("never came")
    seen.came("a")
    assert seen.is_here("a")


# --- work in parallel -------------------------------------------------------------------------------------------------


def test_slots_bound_what_runs_what_waits_and_what_is_one_visitor_s():
    slots, running, most = Slots("exports", running=2, waiting=2, each=3), [], []
    begin, go_on, refused = threading.Barrier(5), threading.Event(), []

    def work(visitor: str) -> None:
        try:
            begin.wait(timeout=10)
            with slots.taken(visitor):
                running.append(visitor)
                most.append(len(running))
                go_on.wait(timeout=10)
                running.pop()
        except EngineError as error:
            refused.append(str(error))
            go_on.set()

    threads = [threading.Thread(target=work, args=(f"visitor {i}",)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=20)
    assert refused == ["too many exports at once: try again in a moment"]
    assert max(most) == 2
    with slots.taken("a"), slots.taken("a"):
        assert slots._taken["a"] == 2
    with slots.taken("a"):
        pass


def test_slots_refuse_what_is_too_much_for_one_visitor():
    slots = Slots("exports", running=2, waiting=2, each=1)
    with slots.taken("a"):
        with pytest.raises(EngineError, match="1 exports of yours are under way"), slots.taken("a"):
            pass
        with slots.taken("b"):
            pass
    with slots.taken("a"):
        pass


# --- over HTTP --------------------------------------------------------------------------------------------------------


class Served(NamedTuple):
    engine: Engine
    address: str
    fn_index: dict[str, int]

    def join(self, api_name: str, data: list, session: str, address: str | None = None) -> httpx.Response:
        body = {"fn_index": self.fn_index[api_name], "data": data, "session_hash": session}
        headers = {} if address is None else {"X-Forwarded-For": address}
        return httpx.post(f"{self.address}/gradio_api/queue/join", json=body, headers=headers, timeout=60)


@pytest.fixture
def page(tiny_pipeline, tmp_path: Path, monkeypatch) -> Iterator[Served]:
    from prophy.ui.page import build_demo, launch

    monkeypatch.setattr(presence, "GRACE_SECONDS", 3.0)
    write_run(tmp_path / "gallery", make_record(), make_frames(), trace=make_trace(), run_id="shipped")
    engine = Engine(runs=tmp_path / "runs", gallery=tmp_path / "gallery", open_pipeline=lambda *_: tiny_pipeline)
    engine.warm_up()
    demo = build_demo(engine)
    address = launch(demo, port=free_port()).rstrip("/")
    names = {fn.api_name: index for index, fn in demo.fns.items() if fn.api_name}
    names |= {fn.fn.__name__: index for index, fn in demo.fns.items() if fn.fn is not None}
    yield Served(engine, address, names)
    demo.close(verbose=False)


def flood(page: Served, count: int = 60, address: str | None = None) -> None:
    """Joins of a program that listens to none of them, each under a session of its own."""
    for i in range(count):
        steps = page.engine.limits.steps
        joined = page.join("generate", [PROMPT, i, steps, -1.0, True, {}, "", "", {}, False], f"flood {i}", address)
        assert joined.status_code == 200


def test_a_flood_to_which_nobody_listens_delays_no_view_and_is_dropped(page: Served):
    flood(page)
    assert 0 < page.engine.ahead <= page.engine.limits.total
    begin = time.monotonic()
    body = {"fn_index": page.fn_index["_on_load"], "data": [""], "session_hash": "mine"}
    assert httpx.post(f"{page.address}/gradio_api/run/predict", json=body, timeout=60).status_code == 200
    client = Client(page.address, verbose=False)
    assert client.predict("shipped", 0, 0, 0, api_name="/inspect_token")["step"] == 4
    assert time.monotonic() - begin < 8, "views wait behind generations"
    end = time.monotonic() + 30
    while page.engine.ahead and time.monotonic() < end:
        time.sleep(0.1)
    assert page.engine.ahead == 0, "jobs of clients that are gone still wait"
    assert client.predict(PROMPT, steps=1, api_name="/generate")["event"] == "finished"


def test_a_flood_from_one_address_takes_that_address_s_places_only(page: Served):
    flood(page, 30, "203.0.113.7")
    time.sleep(0.5)
    assert page.engine.ahead <= page.engine.limits.address
    answer = Client(page.address, verbose=False).predict(PROMPT, steps=1, api_name="/generate")
    assert answer["event"] == "finished"


def test_a_program_is_told_why_it_is_refused(page: Served):
    client = Client(page.address, verbose=False)
    jobs = [client.submit(PROMPT, seed=seed, steps=50, api_name="/generate") for seed in range(5)]
    refusals = []
    for asked in jobs:
        try:
            assert asked.result(timeout=60)["event"] == "finished"
        except AppError as error:
            refusals.append(str(error))
    assert refusals
    assert all("clips waiting or being made, as many as one visitor may" in line for line in refusals)


def test_a_program_that_reads_its_event_by_http_is_listening(page: Served):
    data = {"data": [PROMPT, 0, 2, -1.0, True, {}, "", "", {}, False]}
    event = httpx.post(f"{page.address}/gradio_api/call/generate", json=data, timeout=60).json()["event_id"]
    answer = httpx.get(f"{page.address}/gradio_api/call/generate/{event}", timeout=60).text
    assert "event: complete" in answer


def test_a_large_request_is_refused_whether_it_says_its_size_or_not(page: Served):
    url = f"{page.address}/gradio_api/queue/join"
    large = b'{"data": ["' + b"a" * 2**23 + b'"]}'
    said = httpx.post(url, content=large, headers={"Content-Type": "application/json"}, timeout=60)
    assert said.status_code == 413
    pieces = (large[i : i + 2**16] for i in range(0, len(large), 2**16))
    try:
        unsaid = httpx.post(url, content=pieces, headers={"Content-Type": "application/json"}, timeout=60).status_code
    except httpx.HTTPError:
        unsaid = 400  # the connection is closed on it
    assert unsaid >= 400


def test_no_file_is_taken_where_no_view_asks_for_one(page: Served, tmp_path: Path):
    said = httpx.post(f"{page.address}/gradio_api/upload", files={"files": ("a.txt", b"x")}, timeout=60)
    assert said.status_code == 403
    assert said.json() == {"detail": "this app takes no files"}
