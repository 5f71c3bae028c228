"""The page below a path of a reverse proxy, as nginx or a JupyterHub shows it."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from chromium import CHROMIUM, PATIENCE_MS, free_port
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from synthetic import make_frames, make_record, make_trace

from prophy.runs.store import list_runs, write_run
from prophy.ui.engine.engine import Engine

BELOW = "/tools/prophy"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
]


class Proxy:
    """Shows an app below :data:`BELOW`, and nothing beside it."""

    def __init__(self, app: str, *, passes_on: bool) -> None:
        self._client, self._passes_on = httpx.AsyncClient(base_url=app, timeout=None), passes_on
        methods = ["GET", "POST", "HEAD", "OPTIONS"]
        routes = [Route("/{path:path}", self._forward, methods=methods)]
        self._server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=free_port(), log_level="error"))
        threading.Thread(target=self._server.run, daemon=True).start()
        while not self._server.started:
            time.sleep(0.05)
        self.address = f"http://127.0.0.1:{self._server.config.port}{BELOW}/"

    async def _forward(self, request: Request) -> Response:
        path = request.url.path
        if not path.startswith(f"{BELOW}/"):
            return Response("not here", 404)
        path = path if self._passes_on else path.removeprefix(BELOW)
        query = f"?{request.url.query}" if request.url.query else ""
        host = {"x-forwarded-host": request.headers["host"], "x-forwarded-proto": "http"}
        made = self._client.build_request(
            request.method, path + query, headers={**request.headers, **host}, content=await request.body()
        )
        answer = await self._client.send(made, stream=True)
        kept = {name: value for name, value in answer.headers.items() if name not in ("content-length", "connection")}
        return StreamingResponse(answer.aiter_raw(), answer.status_code, kept)

    def close(self) -> None:
        self._server.should_exit = True


@pytest.fixture
def shown(tiny_pipeline, tmp_path: Path) -> Iterator:
    """Starts the app with a root path, and a proxy before it; gives the proxy's address and the folder of runs."""
    from prophy.ui.page import build_demo, launch

    write_run(tmp_path / "gallery", make_record(), make_frames(), trace=make_trace(), run_id="made-up")
    opened = []

    def start(root_path: str | None, passes_on: bool = False) -> tuple[str, Path]:
        runs = tmp_path / "runs"
        engine = Engine(runs=runs, gallery=tmp_path / "gallery", open_pipeline=lambda *_: tiny_pipeline)
        demo = build_demo(engine)
        port = free_port()
        launch(demo, port=port, root_path=root_path)
        proxy = Proxy(f"http://127.0.0.1:{port}", passes_on=passes_on)
        opened.append((demo, proxy))
        return proxy.address, runs

    yield start
    for demo, proxy in opened:
        proxy.close()
        demo.close(verbose=False)


@pytest.mark.parametrize("passes_on", [False, True])
def test_below_a_path_the_page_generates_when_it_is_told(browser, shown, passes_on: bool):
    address, runs = shown(BELOW, passes_on)
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address)
    page.wait_for_selector("#routing-view .pp-view[data-run=made-up]")
    page.fill("#prompt textarea", "a red ball bounces on the floor")
    page.fill("#steps input", "1")
    page.click("#generate")
    page.wait_for_selector("#history .pp-card")
    assert len(list_runs(runs)) == 1
    assert page.locator("#below-a-path").count() == 0


def test_below_a_path_that_it_was_not_told_of_the_page_says_so(browser, shown):
    address, _ = shown(None)
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address)
    notice = page.wait_for_selector("#below-a-path[role=alert]")
    assert f"Start it with --root-path {BELOW}" in notice.inner_text()
