"""Interlaced video: two fields of every other line, half a frame apart, which a player makes one picture."""

from __future__ import annotations

from collections.abc import Iterator

import av


def progressive(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """The same frames at the same times, interlaced ones without their comb (FFmpeg's bwdif); the others untouched."""
    shape, graph = None, None
    for frame in frames:
        if graph is None and not frame.interlaced_frame:
            yield frame
            continue
        if shape != (shape := (frame.width, frame.height, frame.format.name)):
            if graph is not None:
                yield from _through(graph, None)
            graph = _graph(frame)
        yield from _through(graph, frame)
    if graph is not None:
        yield from _through(graph, None)


def _graph(frame: av.VideoFrame) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add(
        "buffer",
        video_size=f"{frame.width}x{frame.height}",
        pix_fmt=frame.format.name,
        time_base=str(frame.time_base),
        colorspace=str(frame.colorspace),
        range=str(frame.color_range),
    )
    graph.link_nodes(source, graph.add("bwdif", mode="send_frame", deint="interlaced"), graph.add("buffersink"))
    graph.configure()
    return graph


def _through(graph: av.filter.Graph, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
    """What comes out of the graph when a frame is put in, or at the end (None)."""
    graph.vpush(frame)
    while True:
        try:
            picture = graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return
        yield picture
