"""The page in a frame of another site, with and without storage: how a Space is shown, also in a private window."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import ARGUMENTS, CHROMIUM, PATIENCE_MS, free_port
from synthetic import make_frames, make_record, make_trace

from prophy.runs.owner import runs_of
from prophy.runs.store import list_runs, write_run
from prophy.ui.engine.engine import Engine
from prophy.ui.engine.visitors import owner_of

PROMPT = "a red ball bounces on the floor"
SECRET = "document.querySelector('#visitor textarea, #visitor input').value"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
]


@pytest.fixture
def app(tiny_pipeline, tmp_path: Path) -> Iterator[tuple[str, Engine]]:
    """The page for strangers, at an address of its own."""
    from prophy.ui.page import build_demo, launch

    write_run(tmp_path / "gallery", make_record(), make_frames(), trace=make_trace(), run_id="made-up")
    engine = Engine(
        runs=tmp_path / "runs",
        gallery=tmp_path / "gallery",
        list_earlier=False,
        open_pipeline=lambda *_: tiny_pipeline,
    )
    demo = build_demo(engine)
    yield launch(demo, port=free_port()), engine
    demo.close(verbose=False)


@pytest.fixture
def elsewhere(app) -> Iterator[str]:
    """Another site whose only page has the app in a frame."""

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(f'<iframe src="{app[0]}" width=1200 height=850></iframe>'.encode())

        def log_message(self, *_) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}/"  # the app is at 127.0.0.1: another site
        server.shutdown()


@pytest.mark.parametrize("is_blocked", [True, False])
def test_the_page_works_in_a_frame_of_another_site(browser, app, elsewhere: str, tmp_path: Path, is_blocked: bool):
    _, engine = app
    profile = tmp_path / "profile" / "Default"
    profile.mkdir(parents=True)
    cookies = {"block_third_party_cookies": is_blocked, "cookie_controls_mode": int(is_blocked)}
    (profile / "Preferences").write_text(json.dumps({"profile": cookies}))
    with browser.browser_type.launch_persistent_context(
        profile.parent, executable_path=CHROMIUM, args=ARGUMENTS, viewport={"width": 1280, "height": 900}
    ) as context:
        secrets = []
        for _ in range(3):  # half of the loads failed where the page needed storage
            page = context.new_page()
            page.set_default_timeout(PATIENCE_MS)
            page.goto(elsewhere)
            (frame,) = page.main_frame.child_frames
            frame.wait_for_selector("#routing-view .pp-view[data-run=made-up]")
            frame.wait_for_function(f"{SECRET}.length === 64")
            secrets.append(frame.evaluate(SECRET))
        assert len(set(secrets)) == (3 if is_blocked else 1), "without storage a secret lives as long as its page"
        frame.fill("#prompt textarea", PROMPT)
        frame.fill("#steps input", "1")
        frame.click("#generate")
        frame.wait_for_selector("#history .pp-card")
        (run,) = list_runs(engine.runs.folder)
        assert runs_of(engine.runs.folder, owner_of(secrets[-1]), 9) == [run.id]
        frame.get_by_role("button", name="Delete").click()
        frame.get_by_role("button", name="Delete").click()
        frame.wait_for_function("!document.querySelector('#history .pp-card')")
        assert not run.path.exists()


def test_ones_own_runs_are_found_again_and_another_visitor_sees_none(browser, app):
    address, _ = app

    def visit(context):
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(address)
        page.wait_for_selector("#routing-view .pp-view[data-run=made-up]")
        page.wait_for_function(f"{SECRET}.length === 64")
        return page

    with browser.new_context() as mine, browser.new_context() as theirs:
        page = visit(mine)
        page.fill("#prompt textarea", PROMPT)
        page.fill("#steps input", "1")
        page.click("#generate")
        page.wait_for_selector("#history .pp-card")
        other_tab = visit(mine)
        other_tab.wait_for_selector("#history .pp-card")
        assert other_tab.evaluate(SECRET) == page.evaluate(SECRET)
        stranger = visit(theirs)
        stranger.wait_for_timeout(1000)  # for what must not come
        assert stranger.locator("#history .pp-card").count() == 0
        assert stranger.evaluate(SECRET) != page.evaluate(SECRET)
