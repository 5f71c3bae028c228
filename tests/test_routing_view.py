"""The routing view's arithmetic, in its own language: run under node and compared with Python's."""

import dataclasses
import json
import shutil
import subprocess

import numpy as np
import pytest
from synthetic import GRID, make_trace

from prophy import heatmaps
from prophy.ui.routing_view import STATIC, RoutingBytes

node = shutil.which("node")
pytestmark = pytest.mark.skipif(node is None, reason="no node on PATH: the browser tests still cover the routing view")


def run_js(expression: str, value: object = None) -> object:
    """Evaluate an expression of ``js`` (routing.js) and ``value``."""
    script = (
        f"const js = require({json.dumps(str(STATIC / 'routing.js'))});"
        "const value = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        f"process.stdout.write(JSON.stringify({expression}));"
    )
    done = subprocess.run([node, "-e", script], input=json.dumps(value), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def sent() -> dict:
    return dataclasses.asdict(RoutingBytes.of(make_trace()))


def test_latent_frames_follow_the_grid():
    frames = list(range(GRID.num_video_frames))
    assert run_js("value.map((f) => js.latentFrame(f, 4))", frames) == [GRID.latent_frame(f) for f in frames]


def test_media_times_and_seeks_name_the_right_frame():
    frames = list(range(17))
    for fps in (8, 16, 23.976, 30):
        times = [[frame / fps, round(frame / fps, 6), (frame + 0.5) / fps] for frame in frames]
        found = run_js(f"value.map((row) => row.map((t) => js.videoFrame(t, {fps}, 17)))", times)
        assert found == [[frame] * 3 for frame in frames]
        assert run_js(f"value.map((f) => js.videoFrame(js.seekTime(f, {fps}), {fps}, 17))", frames) == frames
    assert run_js("[js.videoFrame(-1, 8, 17), js.videoFrame(99, 8, 17)]") == [0, 16]


@pytest.mark.parametrize(
    ("mode", "index"), [("top1", None), ("expert", 0), ("expert", 5), ("phenomenon", 2), ("phenomenon", 16)]
)
@pytest.mark.parametrize("step", [0, 3])
def test_cells_are_what_the_saved_pictures_show(sent: dict, mode: str, index: int | None, step: int):
    trace = make_trace()
    shown = {"mode": mode, "expert": index or 0, "phenomenon": index or 0, "step": step, "opacity": 0.6}
    cells = run_js(
        "(() => { const r = js.readRouting(value.sent);"
        " return [0, 1, 2].map((t) => [...js.cellColours(r, value.shown, t)]); })()",
        {"sent": sent, "shown": shown},
    )
    rgba = np.array(cells, float).reshape(*GRID.shape, 4)
    black = np.zeros((GRID.num_video_frames, GRID.height, GRID.width, 3), np.uint8)
    pictures = heatmaps.overlay(black, trace, mode, index=index, step=step, opacity=0.6)
    first_of_latent = pictures[[GRID.video_frames(t)[0] for t in range(GRID.frames)]]
    over_black = rgba[..., :3] * rgba[..., 3:] / 255
    print("largest difference", np.abs(over_black - first_of_latent).max())
    assert np.abs(over_black - first_of_latent).max() < 2  # alpha is a whole number of 255 in a browser


def test_shares_and_peaks_are_the_traces_own(sent: dict):
    trace = make_trace()
    shares = run_js("js.expertShares(js.readRouting(value), 1)", sent)
    assert np.allclose(shares, np.bincount(trace.top1(1).ravel(), minlength=trace.num_experts) / GRID.num_tokens)
    peaks = run_js("js.phenomenonPeaks(js.readRouting(value), 1)", sent)
    assert np.abs(np.array(peaks) - trace.phenomenon_maps[1].max(0)).max() < 0.003
