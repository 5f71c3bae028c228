"""The routing view's arithmetic, in its own language: run under node and compared with Python's."""

import dataclasses
import json
import shutil
import subprocess

import cv2
import numpy as np
import pytest
from synthetic import GRID, NUM_EXPERTS, make_attention, make_frames, make_record, make_trace

from prophy.catalogue.experts import ExpertShares
from prophy.grid import TokenGrid
from prophy.runs import overlay
from prophy.runs.layer import Layer, OverlaySettings
from prophy.runs.store import write_run
from prophy.ui.views.component import STATIC
from prophy.ui.views.routing import RoutingBytes

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


def test_a_latent_frame_begins_where_the_grid_says():
    first = [GRID.video_frames(t)[0] for t in range(GRID.frames)]
    assert run_js("value.map((t) => js.firstVideoFrame(t, 4))", list(range(GRID.frames))) == first


def test_media_times_and_seeks_name_the_right_frame():
    frames = list(range(17))
    for fps in (8, 16, 23.976, 30):
        times = [[frame / fps, round(frame / fps, 6), (frame + 0.5) / fps] for frame in frames]
        found = run_js(f"value.map((row) => row.map((t) => js.videoFrame(t, {fps}, 17)))", times)
        assert found == [[frame] * 3 for frame in frames]
        assert run_js(f"value.map((f) => js.videoFrame(js.seekTime(f, {fps}), {fps}, 17))", frames) == frames
    assert run_js("[js.videoFrame(-1, 8, 17), js.videoFrame(99, 8, 17)]") == [0, 16]


@pytest.mark.parametrize(
    ("mode", "index"),
    [
        ("phenomena", None),
        ("top1", None),
        ("expert", 0),
        ("expert", 5),
        ("phenomenon", 2),
        ("phenomenon", 16),
        ("entropy", None),
        ("margin", None),
    ],
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
    ground = overlay.greyed(black[0, 0, 0]).astype(float) if mode == "phenomena" else np.zeros(3)
    pictures = overlay.overlay(black, trace, mode, index=index, step=step, opacity=0.6)
    first_of_latent = pictures[[GRID.video_frames(t)[0] for t in range(GRID.frames)]]
    alpha = rgba[..., 3:] / 255
    over_black = rgba[..., :3] * alpha + ground * (1 - alpha)
    if mode == "phenomena":  # where the two strongest are the same byte in a browser, either may be shown
        second, first = np.sort(trace.phenomenon_maps[step].astype(np.float32), axis=1)[:, -2:].T
        is_clear = (np.round(255 * first) != np.round(255 * second)).reshape(GRID.shape)
        assert is_clear.mean() > 0.7
        over_black, first_of_latent = over_black[is_clear], first_of_latent[is_clear]
    print("largest difference", np.abs(over_black - first_of_latent).max())
    # Alpha is a whole number of 255 in a browser. A margin is the difference of two rounded weights, so it may be one
    # level of the scale off, and neighbours there differ by up to 4.
    assert np.abs(over_black - first_of_latent).max() < 2 + (0.6 * 4 if mode == "margin" else 0)


VIEWS = [
    {"mode": "phenomena"},
    {"mode": "all"},
    {"mode": "expert", "expert": 5},
    {"mode": "phenomenon", "phenomenon": 2},
    {"mode": "margin"},
    {"mode": "words", "word": 3},
    {"mode": "words", "word": 0, "chosen": {"at": 1, "rows": [1, 2], "columns": [0, 3]}},
    {"mode": "off"},
]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: "looks" if "chosen" in view else view["mode"])
@pytest.mark.parametrize("step", [0, 3])
def test_what_is_asked_of_the_server_is_what_is_on_show(tmp_path, view: dict, step: int):
    run = write_run(tmp_path, make_record(), make_frames(), trace=make_trace(), attention=make_attention())
    sent = dataclasses.asdict(RoutingBytes.of(run.trace(), attention=run.attention()))
    asked, cells = run_js(
        """(() => {
            const r = js.readRouting(value.sent);
            const { chosen, ...view } = value.view;
            const shown = { expert: 0, phenomenon: 0, word: 0, step: value.step, opacity: 0.6, ...view };
            if (chosen) shown.attended = js.attendedFrom(r, js.tokensOf(r, chosen.at, chosen));
            if (chosen) shown.most = Math.max(...shown.attended);
            const drawn = shown.mode === "all" ? { ...shown, mode: "top1" } : shown;
            return [js.viewToSave(r, shown, chosen), [0, 1, 2].map((t) => [...js.cellColours(r, drawn, t)])];
        })()""",
        {"sent": sent, "view": view, "step": step},
    )
    rgba = np.array(cells, float).reshape(*GRID.shape, 4)
    if asked["opacity"] == 0:
        assert view["mode"] == "off"
        assert not rgba.any()
        return
    layer = Layer.of(run, OverlaySettings(**asked), "still")
    shown = rgba[..., 3] > 8  # the fainter a token, the coarser its colour: each was rounded
    assert shown.mean() > 0.2
    assert np.abs(rgba[..., 3] / 255 - layer.tint.alpha).max() < 0.01
    # One level of the scale, where values were rounded before they were subtracted or averaged; and of two phenomena
    # that are the same byte in a browser either may be shown.
    is_near = np.abs(rgba[..., :3] - layer.tint.colours).max(-1) <= 4
    assert is_near[shown].mean() > (0.8 if view["mode"] == "phenomena" else 0.999)


def test_the_colour_scale_is_the_saved_pictures_own():
    scale = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_CIVIDIS).reshape(256, 3)[:, ::-1]
    assert np.array_equal(np.reshape(run_js("[...js.CIVIDIS]"), (256, 3)), scale)


def test_entropies_are_exact_and_margins_within_one_level(sent: dict):
    trace = make_trace()
    entropy, margins = run_js(
        "(() => { const r = js.readRouting(value); const every = [...Array(r.tokens).keys()];"
        " return [[...r.entropy], every.map((n) => js.margin(r, 2, n))]; })()",
        sent,
    )
    levels = {mode: 255 * overlay.token_strengths(trace, mode, step=2).ravel() for mode in ("entropy", "margin")}
    assert np.array_equal(entropy, np.round(levels["entropy"]))
    assert np.abs(margins - levels["margin"]).max() <= 1.5
    assert np.ptp(entropy) > 50
    assert np.ptp(margins) > 50


def test_off_lays_nothing_over_the_video(sent: dict):
    shown = {"mode": "off", "expert": 0, "phenomenon": 0, "step": 0, "opacity": 1}
    cells = run_js("[...js.cellColours(js.readRouting(value.sent), value.shown, 1)]", {"sent": sent, "shown": shown})
    assert cells == [0] * (4 * GRID.height * GRID.width)


def test_an_experts_cells_are_coloured_within_a_fraction_of_a_frame():
    grid = TokenGrid(frames=21, height=30, width=52)  # 81 frames of 832×480 pixels in Wan2.1
    mean, median = run_js(
        """(() => {
            const r = js.readRouting(value);
            const shown = { mode: "expert", phenomenon: 0, step: 1, opacity: 0.5 };
            const run = (i) => js.cellColours(r, { ...shown, expert: i % r.experts.length }, i % r.frames);
            for (let i = 0; i < 200; i++) run(i);
            const times = Array.from({ length: 400 }, (_, i) => {
                const start = performance.now();
                run(i);
                return performance.now() - start;
            }).sort((a, b) => a - b);
            return [times.reduce((a, b) => a + b) / 400, times[200]];
        })()""",
        dataclasses.asdict(RoutingBytes.of(make_trace(grid=grid, steps=2))),
    )
    print(f"cellColours of 30×52 tokens: {mean:.3f} ms on average, {median:.3f} ms in the median")
    assert mean < 5  # counts whatever else a busy machine does
    assert median < 1


def region_means(sent: dict, step: int, t: int, rows: tuple[int, int], columns: tuple[int, int]) -> list:
    """A region's means over time at a step, (T, E), and over steps at a latent frame, (D, E)."""
    return run_js(
        "(() => { const r = js.readRouting(value.sent); const { step, t, rows, columns } = value;"
        " return [js.regionOverTime(r, step, rows, columns), js.regionOverSteps(r, t, rows, columns)]; })()",
        {"sent": sent, "step": step, "t": t, "rows": rows, "columns": columns},
    )


def test_a_region_of_one_token_is_that_tokens_record(sent: dict):
    trace = make_trace()
    step, (t, h, w) = 2, (1, 3, 4)
    over_time, over_steps = region_means(sent, step, t, (h, h), (w, w))
    assert np.shape(over_time) == (GRID.frames, NUM_EXPERTS)
    assert np.shape(over_steps) == (trace.num_kept, NUM_EXPERTS)
    for expert in range(NUM_EXPERTS):
        recorded = np.round(255 * trace.expert_map(expert, step)[:, h, w])
        assert np.allclose(255 * np.array(over_time)[:, expert], recorded)
        recorded = [np.round(255 * trace.expert_map(expert, d)[t, h, w]) for d in range(trace.num_kept)]
        assert np.allclose(255 * np.array(over_steps)[:, expert], recorded)


@pytest.mark.parametrize(("rows", "columns"), [((1, 2), (0, 3)), ((0, 3), (0, 4)), ((3, 3), (1, 2))])
def test_a_regions_means_are_those_of_the_trace(sent: dict, rows: tuple[int, int], columns: tuple[int, int]):
    trace = make_trace()
    step, t = 1, 2
    over_time, over_steps = region_means(sent, step, t, rows, columns)
    part = np.s_[:, rows[0] : rows[1] + 1, columns[0] : columns[1] + 1]
    maps_DETHW = np.array([[trace.expert_map(e, d)[part] for e in range(NUM_EXPERTS)] for d in range(trace.num_kept)])
    means_DET = maps_DETHW.mean((3, 4))
    largest = max(np.abs(over_time - means_DET[step].T).max(), np.abs(over_steps - means_DET[:, :, t]).max())
    print("largest difference", largest)
    assert largest <= 0.5 / 255 + 1e-6


def test_cells_under_the_pointer_boxes_and_moves_stay_in_the_grid(sent: dict):
    cells = run_js(
        "[[0, 0], [0.999, 0.999], [0.41, 0.26], [-3, 7]].map(([x, y]) => js.cellAt(js.readRouting(value), x, y))", sent
    )
    assert [(cell["row"], cell["column"]) for cell in cells] == [(0, 0), (3, 4), (1, 2), (3, 0)]
    box = run_js("js.regionBetween({row: 3, column: 1}, {row: 1, column: 4})")
    assert box == {"rows": [1, 3], "columns": [1, 4]}
    moves = run_js(
        "(() => { const r = js.readRouting(value.sent);"
        " return [[-1, 0], [-9, 1], [1, -1], [0, 9]].map(([d, a]) => js.movedRegion(r, value.box, d, a)); })()",
        {"sent": sent, "box": {"rows": [1, 2], "columns": [1, 3]}},
    )
    assert [(move["rows"], move["columns"]) for move in moves] == [
        ([0, 1], [1, 3]),
        ([0, 1], [2, 4]),
        ([2, 3], [0, 2]),
        ([1, 2], [2, 4]),
    ]


def test_titles_and_numbers_say_what_they_count():
    titles = run_js(
        "value.map((region) => js.regionTitle(region))",
        [
            {"rows": [3, 3], "columns": [4, 4]},
            {"rows": [1, 2], "columns": [4, 4]},
        ],
    )
    assert titles == ["Token at row 3, column 4", "Region of rows 1–2, columns 4–4"]
    assert run_js("js.weightsText([0, 51 / 255, 102 / 255])") == "expert 2 0.400, expert 1 0.200, others 0.400"
    assert run_js("js.othersWeight([0.7, 0.302])") == 0  # two weights that were both rounded up
    assert run_js("[...Array(256).keys()].map((byte) => js.byteText(byte / 255))") == [str(b) for b in range(256)]


def test_a_label_names_an_expert_and_its_weight_in_every_mode(sent: dict):
    trace = make_trace()
    token, step = GRID.index(1, 2, 3), 1
    best, second = (int(expert) for expert in trace.topk_ids[step, token])
    weights = [f"{round(255 * float(w)) / 255:.2f}" for w in trace.topk_weights[step, token]]
    absent = next(e for e in range(NUM_EXPERTS) if e not in (best, second))
    shown = {"phenomenon": 4, "step": step}
    labels = run_js(
        "value.views.map((view) => js.tokenLabel(js.readRouting(value.sent), view, value.token))",
        {
            "sent": sent,
            "token": token,
            "views": [
                {**shown, "mode": "top1", "expert": 0},
                {**shown, "mode": "expert", "expert": second},
                {**shown, "mode": "expert", "expert": absent},
                {**shown, "mode": "entropy", "expert": 0},
                {**shown, "mode": "phenomenon", "expert": 0},
                {**shown, "mode": "phenomena", "expert": 0},
            ],
        },
    )
    assert labels[:3] == [f"expert {best} · {weights[0]}", f"expert {second} · {weights[1]}", f"expert {absent} · 0.00"]
    entropy = round(255 * float(trace.entropy().ravel()[token])) / 255
    assert labels[3] == f"entropy · {entropy:.2f}, {labels[0]}"
    name, peak = sent["phenomena"][4][0], round(255 * float(trace.phenomenon_maps[step, token, 4])) / 255
    assert labels[4] == f"{name} · {peak:.2f}, {labels[0]}"
    values = np.round(255 * trace.phenomenon_maps[step, token].astype(np.float32)) / 255
    assert labels[5] == f"{sent['phenomena'][values.argmax()][0]} · {values.max():.2f}, {labels[0]}"


def test_frames_are_counted_from_one_as_the_player_does():
    texts = run_js("value.map((t) => js.framesText(t, 4))", list(range(GRID.frames)))
    assert texts == ["frame 1", "frames 2–5", "frames 6–9"]
    assert [GRID.video_frames(t)[-1] + 1 for t in range(GRID.frames)] == [1, 5, 9]


def test_an_expert_is_named_by_what_it_was_measured_to_do_and_only_learnt_phenomena_are_offered():
    shares = ({"melting": 0.71, "deformation": 0.2}, {"melting": 0.3}, *({},) * (NUM_EXPERTS - 2))
    learnt = ("melting", "deformation")
    measured = ExpertShares(shares, (1 / NUM_EXPERTS,) * NUM_EXPERTS, learnt, ("0" * 64,), clips=8)
    sent = dataclasses.asdict(RoutingBytes.of(make_trace(), measured))
    named = run_js("[0, 1].map((e) => js.expertName(js.readRouting(value), e))", sent)
    assert named == ["Expert 0: melting 71 %", "Expert 1"]
    assert [sent["phenomena"][p][0] for p in sent["offered"]] == ["deformation", "melting"]
    other = dataclasses.replace(measured, shares=shares[:2], used=(0.5, 0.5))  # of a branch with fewer experts
    assert RoutingBytes.of(make_trace(), other).names == [""] * NUM_EXPERTS


def test_an_address_carries_what_is_on_show_and_is_read_back_as_it_was(sent: dict):
    shown = {"mode": "phenomena", "expert": 2, "phenomenon": 1, "step": 3, "opacity": 0.9}
    views = [
        shown,
        {**shown, "mode": "expert", "step": 1, "opacity": 0.45},
        {**shown, "mode": "phenomenon", "step": 0},
        {**shown, "mode": "off", "opacity": 0},
    ]
    script = (
        "(() => { const r = js.readRouting(value.sent); return value.views.map((view) => {"
        " const link = js.linkTo('http://here/app', js.addressOf('a run&x', r, view, 4));"
        " return [link, js.readAddress(new URL(link).search, r, 9)]; }); })()"
    )
    links, read = zip(*run_js(script, {"sent": sent, "views": views}), strict=True)
    assert links[0] == "http://here/app?run=a+run%26x&view=phenomena&opacity=90&frame=5"
    assert "&view=expert&expert=2&step=2&opacity=45&" in links[1]
    assert "&view=phenomenon&phenomenon=rigid_body_motion&step=1&" in links[2]
    assert [one["frame"] for one in read] == [4] * 4
    for view, one in zip(views, read, strict=True):
        assert {**view, **one["change"]} == view
    assert run_js("js.linkTo('http://here/', js.addressOf('a', null, {}, null))") == "http://here/?run=a"


@pytest.mark.parametrize(
    "search",
    [
        "",
        "?expert=99&frame=99999",
        "?expert=-1&frame=x&step=1e1&opacity=101",
        "?expert=٣&frame=" + "9" * 400,
        "?view=expert&phenomenon=heat&step=0&frame=0",
        "?view=constructor&opacity=NaN",
    ],
)
def test_what_an_address_says_that_the_run_does_not_have_is_not_there(sent: dict, search: str):
    read = run_js("js.readAddress(value.search, js.readRouting(value.sent), 9)", {"sent": sent, "search": search})
    assert read == {"change": {}, "frame": None}


def test_a_run_without_routing_has_a_frame_in_its_address_and_no_view():
    assert run_js("js.readAddress('?expert=0&frame=4', null, 9)") == {"change": {}, "frame": 3}


@pytest.mark.parametrize("most_cells", [1024, 20])
def test_words_and_where_tokens_look_are_what_was_recorded(most_cells: int):
    attention = make_attention(most_cells=most_cells)
    sent = dataclasses.asdict(RoutingBytes.of(make_trace(), attention=attention))
    assert attention.cell_side == (1 if most_cells == 1024 else 2)
    read = run_js(
        "(() => { const r = js.readRouting(value); return {"
        " at: [0, 1, 2, 3].map((step) => js.attentionStep(r, step)),"
        " shares: js.wordShares(r, 1, [7]), both: js.wordShares(r, 0, [7, 8]), peaks: js.wordPeaks(r, 1),"
        " cells: Array.from({length: r.tokens}, (_, n) => js.cellOf(r, n)),"
        " attended: [...js.attendedFrom(r, [33])], time: js.attendedOverTime(r, js.attendedFrom(r, [33])),"
        " region: js.tokensOf(r, 1, {rows: [2, 3], columns: [0, 1]}) }; })()",
        sent,
    )
    maps = np.array([[attention.word_map(w, d).ravel() for w in range(4)] for d in (0, 1)])
    assert read["at"] == [0, 0, 0, 1], "the nearest of steps 2 and 4; the earlier of two"
    assert np.allclose(read["shares"], maps[1, :, 7], atol=1e-5)
    assert np.allclose(read["both"], maps[0][:, [7, 8]].mean(1), atol=1e-5)
    assert np.allclose(read["peaks"], maps[1].max(1), atol=1e-5)
    assert read["cells"] == attention.cells.of_token.tolist()
    attended = attention.attended_from(33)
    assert np.allclose(read["attended"], attended.ravel(), atol=1e-5)
    assert np.allclose(read["time"], attended.sum((1, 2)), atol=1e-4)
    assert read["region"] == [GRID.index(1, h, w) for h in (2, 3) for w in (0, 1)]


def test_a_words_cells_are_coloured_by_its_levels_and_none_where_nothing_was_recorded(sent: dict):
    attention = make_attention()
    routing = dataclasses.asdict(RoutingBytes.of(make_trace(), attention=attention))
    shown = {"mode": "words", "word": 2, "step": 3, "opacity": 1, "attended": None, "most": 1, "expert": 0}
    draw = (
        "(() => { const r = js.readRouting(value.sent); return [js.cellColours(r, value.shown, 1),"
        " js.tokenLabel(r, value.shown, 25)].map((one) => typeof one === 'string' ? one : [...one]); })()"
    )
    cells, label = run_js(draw, {"sent": routing, "shown": shown})
    per_frame = GRID.height * GRID.width
    levels = attention.word_maps[1, per_frame : 2 * per_frame, 2]
    assert np.array_equal(np.array(cells).reshape(-1, 4)[:, :3], overlay.level_colours()[levels])
    assert label == f"“ball” · {100 * attention.word_map(2).ravel()[25]:.2f} %"
    cells, _ = run_js(draw, {"sent": sent, "shown": shown})
    assert set(cells) == {0}


def test_an_address_names_the_word_on_show():
    sent = dataclasses.asdict(RoutingBytes.of(make_trace(), attention=make_attention()))
    read = run_js(
        "(() => { const r = js.readRouting(value);"
        " const parts = js.addressOf('a', r, {mode: 'words', word: 3, step: 3, opacity: 0.4}, null);"
        " return [parts, ...[4, 5, 0].map((word) => js.readAddress(`?view=words&word=${word}`, r, 9).change)]; })()",
        sent,
    )
    assert read[0] == {"run": "a", "view": "words", "word": 4, "opacity": 40}
    assert read[1:] == [{"mode": "words", "word": 3}, {"mode": "words"}, {"mode": "words"}]


def test_shares_and_peaks_are_the_traces_own(sent: dict):
    trace = make_trace()
    shares = run_js("js.expertShares(js.readRouting(value), 1)", sent)
    assert np.allclose(shares, np.bincount(trace.top1(1).ravel(), minlength=trace.num_experts) / GRID.num_tokens)
    peaks = run_js("js.phenomenonPeaks(js.readRouting(value), 1)", sent)
    assert np.abs(np.array(peaks) - trace.phenomenon_maps[1].max(0)).max() < 0.003


def test_the_browser_names_the_same_unknown_words_as_python():
    from transformers import AutoTokenizer

    from prophy.assets import default_model
    from prophy.generation.words import known_words, unknown_words

    tokenizer = AutoTokenizer.from_pretrained(default_model() / "tokenizer")
    prompts = [
        "a red ball bounces on the floor",
        "A RED zebra's ball, café & 3 candles—burns’s x2",
        "zzz  zzz\nthe",
        "红色的球,ball 球 गेंद उछलती ลูกบอล cafe\u0301 ﬁre",
        "",
    ]
    script = (
        f"const js = require({json.dumps(str(STATIC / 'words.js'))});"
        "const value = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        "process.stdout.write(JSON.stringify(value.prompts.map((p) => js.unknownWords(p, value.words, false))));"
    )
    value = json.dumps({"prompts": prompts, "words": known_words(tokenizer)})
    done = subprocess.run([node, "-e", script], input=value, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [list(unknown_words(tokenizer, prompt)) for prompt in prompts]
