"""The app with two models in a real browser: a visitor picks one, is told what a clip will need, and sees its size."""

import subprocess
import sys
from pathlib import Path

import pytest
from chromium import CHROMIUM, PATIENCE_MS, free_port
from conftest import make_branch
from small_cogvideox import make_cogvideox, make_cogvideox_pipeline

from prophy.runs.store import list_runs

ROOT = Path(__file__).resolve().parents[1]
PROMPT = "a red ball bounces"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH"),
]


@pytest.mark.timeout(300)
def test_a_visitor_picks_a_model_and_gets_clips_of_its_size(browser, tmp_path: Path):
    transformer = make_cogvideox()
    pipeline = make_cogvideox_pipeline(transformer, make_branch(transformer, trained=True))
    pipeline.save_pretrained(tmp_path / "small-cogvideox")
    port = free_port()
    flags = ["--model", "embedded", "--model", str(tmp_path / "small-cogvideox"), "--size", "96x64x9"]
    flags += ["--port", str(port), "--no-browser", "--runs", str(tmp_path / "runs")]
    command = [sys.executable, str(ROOT / "app.py"), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            assert process.stdout.readline().strip() == f"ProPhy is at http://127.0.0.1:{port}/"
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(PATIENCE_MS)
            page.goto(f"http://127.0.0.1:{port}")
            page.wait_for_selector("#estimate :text('64×64, 17 frames at 8 a second')")
            assert "prophy-tiny was trained from scratch" in page.inner_text("#about-model")

            assert page.locator("#width").count() == 0, "the embedded model makes clips of one size"
            page.click("#model input")
            page.click("[role=option]:has-text('small-cogvideox')")
            page.wait_for_selector("#estimate :text('96×64, 9 frames at 8 a second')")
            assert "GiB" in page.inner_text("#estimate")
            sizes = [page.input_value(f"#{name} input") for name in ("width", "height", "frames")]
            assert sizes == ["96", "64", "9"]
            assert "small-cogvideox: 96×64 pixels" in page.inner_text("#about-model")
            page.screenshot(path=tmp_path / "picked.png")

            before = page.get_attribute(".pp-view[data-run]", "data-run")
            page.fill("#prompt textarea", PROMPT)
            page.fill("#steps input", "2")
            page.click("#generate")
            page.wait_for_function("(id) => document.querySelector('.pp-view').dataset.run !== id", arg=before)
            page.wait_for_function("document.querySelector('video').readyState >= 3")
            width, height = page.evaluate(
                "(({videoWidth: w, videoHeight: h}) => [w, h])(document.querySelector('video'))"
            )
            assert width / height == 96 / 64
            (run,) = list_runs(tmp_path / "runs")
            assert run.record.model_id == "small-cogvideox"
            assert run.trace().grid.shape == (3, 4, 6)
            page.wait_for_selector("#estimate :text('about')")

            page.click("#tabs button[role=tab]:has-text('Compare')")
            page.click("#compare-kind label:has-text('Steered')")
            page.wait_for_selector("#steering .pp-steer")
            page.screenshot(path=tmp_path / "compare.png")
        finally:
            process.kill()
