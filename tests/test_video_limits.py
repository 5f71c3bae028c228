"""No file costs much before it is refused: not what it declares, not what it is, not what is wrong with it."""

import os
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import greys, numbers, patched, scene, write, yuv

from prophy.video import UnreadableClip, picture_size, read_video, sample_frames, source

ROOT = Path(__file__).resolve().parents[1]
READERS = {
    "picture_size": picture_size,
    "read_video": read_video,
    "sample_frames": lambda path: sample_frames(path, 9, 8, 32, 32),
}


def refused_by_all(path: Path, reason: str) -> None:
    for read in READERS.values():
        with pytest.raises(UnreadableClip, match=reason) as caught:
            read(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


def box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return struct.pack(">I4s", 8 + len(body), kind) + body


# --- what a file declares


def endless_samples(path: Path) -> Path:
    """One size for sixty million samples: FFmpeg takes 4 GiB for them."""
    write(path, greys(range(9)))
    return patched(patched(path, b"stsz", 4, numbers(1, 60_000_000)), b"stsc", 12, numbers(60_000_000))


def many_fragments(path: Path) -> Path:
    """Fragments whose samples need no bytes each."""
    write(path, greys(range(9)), container_options={"movflags": "frag_keyframe+empty_moov"})
    fragment = box(b"moof", box(b"traf", box(b"trun", numbers(0, 1_000_000))))
    path.write_bytes(path.read_bytes() + 5 * fragment)
    return path


def one_piece_again_and_again(path: Path) -> Path:
    """An edit list that shows 100,000 samples a thousand times."""
    write(path, greys(range(9)))
    patched(path, b"elst", 4, numbers(1000))
    return patched(path, b"stsz", 4, numbers(1, 100_000))


def compressed_index(path: Path) -> Path:
    path.write_bytes(box(b"ftyp", b"qt  ", numbers(0)) + box(b"moov", box(b"cmov", box(b"dcom", b"zlib"))))
    return path


def crumbs(path: Path) -> Path:
    """Four million empty boxes."""
    path.write_bytes(box(b"ftyp", b"isom", numbers(0)) + 4_000_000 * box(b"free"))
    return path


def album(path: Path) -> Path:
    items = box(b"meta", numbers(0), box(b"iinf", numbers(1 << 24, 100_000_000)))
    path.write_bytes(box(b"ftyp", b"heic", numbers(0), b"mif1heic") + items)
    return path


def huge_pictures(path: Path) -> Path:
    """20,000 × 16,000 in 100 bytes, which a decoder would take 1.2 GiB for."""
    head = b"GIF89a" + struct.pack("<HHBBB", 16_000, 20_000, 0x80, 0, 0) + bytes(3) + b"\xff" * 3
    picture = b"\x21\xf9\x04\x00\x0a\x00\x00\x00\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    path.write_bytes(head + 9 * picture + b"\x3b")
    return path


DECLARES = {
    "endless samples": (endless_samples, "a.mp4", "declares more than 4,000,000 samples"),
    "many fragments": (many_fragments, "a.mp4", "declares more than 4,000,000 samples"),
    "one piece again": (one_piece_again_and_again, "a.mp4", "declares more than 4,000,000 samples"),
    "compressed index": (compressed_index, "a.mov", "has a compressed index"),
    "crumbs": (crumbs, "a.mp4", "has an index of more than 64 MiB, or in too many parts"),
    "an album": (album, "a.mp4", "declares more than 4,096 pictures"),
    "huge pictures": (huge_pictures, "a.gif", "breaks off: a picture is damaged or too large"),
}


@pytest.mark.parametrize("kind", DECLARES)
def test_a_file_that_declares_too_much_is_refused_before_it_is_opened(tmp_path: Path, kind: str):
    make, name, reason = DECLARES[kind]
    refused_by_all(make(tmp_path / name), reason)


def test_pictures_that_grow_midway_are_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.ts"
    write(path, greys(range(8), 64, 64))
    write(tmp_path / "b.ts", greys(range(8), 512, 512), times=list(range(8, 16)))
    path.write_bytes(path.read_bytes() + (tmp_path / "b.ts").read_bytes())
    assert sample_frames(path, 12, 8, 32, 32).shape == (12, 32, 32, 3)
    monkeypatch.setattr(source, "_PICTURE_BYTES", 256 * 256 * 2)
    with pytest.raises(UnreadableClip, match="has pictures of 512×512 pixels"):
        sample_frames(path, 12, 8, 32, 32)
    assert sample_frames(path, 6, 8, 32, 32).shape == (6, 32, 32, 3), "what comes before is good"


def test_a_long_sound_track_of_raw_samples_is_no_reason_to_refuse(tmp_path: Path):
    path = tmp_path / "a.mov"
    with av.open(str(path), "w") as container:
        film, sound = container.add_stream("libx264", rate=8), container.add_stream("pcm_u8", rate=192_000)
        film.width, film.height, film.pix_fmt = 48, 32, "yuv420p"
        sound.layout = "mono"
        for number, picture in enumerate(greys(range(40, 120, 10))):
            frame = yuv(picture)
            frame.pts, frame.time_base = number, Fraction(1, 8)
            container.mux(film.encode(frame))
        container.mux(film.encode())
        for number in range(24):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 192_000), np.uint8), format="u8", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = 192_000, 192_000 * number, Fraction(1, 192_000)
            container.mux(sound.encode(samples))
        container.mux(sound.encode())
    assert path.read_bytes().count((24 * 192_000).to_bytes(4, "big")), "its sample table is as long as meant"
    assert len(read_video(path).frames) == 8


def test_more_work_than_a_clip_can_be_worth_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write(tmp_path / "a.mp4", greys([40] * 60), rate=60)
    monkeypatch.setattr(source, "_MOST_PIXELS", 20 * source._LEAST_PIXELS)
    assert sample_frames(path, 2, 8, 32, 32).shape == (2, 32, 32, 3)
    with pytest.raises(UnreadableClip, match="has too much to decode on the way to the last frame needed"):
        sample_frames(path, 4, 8, 32, 32)


@pytest.mark.parametrize(
    "wanted", [(10**9, 8, 32, 32), (9, 8, 10**6, 10**6), (81, 16, 2160, 3840)], ids=["frames", "sides", "all together"]
)
def test_more_than_memory_is_not_asked_for(tmp_path: Path, wanted: tuple[int, float, int, int]):
    path = write(tmp_path / "a.mp4", greys(range(9)))
    with pytest.raises(ValueError, match="are more than 768 MiB: ask for fewer or smaller ones"):
        sample_frames(path, *wanted)


# --- what they cost

_MEASURE = """
import resource, sys, time
from prophy.video import UnreadableClip, picture_size, read_video, sample_frames
before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
for read in (picture_size, read_video, lambda path: sample_frames(path, 25, 8, 64, 64)):
    try:
        read(sys.argv[1])
    except UnreadableClip as error:
        print(error.reason)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024, time.perf_counter() - began)
"""


def cost(path: Path) -> tuple[list[str], float, float]:
    """Reasons, MiB and seconds of reading a file in three ways, in a process of its own."""
    command = [sys.executable, "-c", _MEASURE, str(path)]
    *reasons, figures = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=100
    ).stdout.splitlines()
    grown, seconds = map(float, figures.split())
    return reasons, grown, seconds


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
@pytest.mark.parametrize("kind", DECLARES)
def test_what_is_declared_costs_nothing(tmp_path: Path, kind: str):
    make, name, _ = DECLARES[kind]
    reasons, grown, seconds = cost(make(tmp_path / name))
    assert len(reasons) == 3
    assert grown < 100
    assert seconds < 5


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
def test_a_small_file_of_large_black_pictures_costs_less_than_a_gibibyte(tmp_path: Path):
    """In Matroska, which says neither how many they are nor how large they become."""
    black = yuv(np.zeros((2304, 4096, 3), np.uint8))
    fast = {"preset": "ultrafast", "crf": "30", "g": "1000"}
    path = write(tmp_path / "a.mkv", [black] * 30, options=fast, container_options={"live": "1"})
    assert path.stat().st_size < 200_000
    reasons, grown, _ = cost(path)
    assert reasons == ["decodes to more than 768 MiB: cut it into shorter clips"], (
        "its size and its first frames are had"
    )
    assert grown < 1000


# --- what is no file, no video, or damaged


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def picture(kind: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with av.open(str(path), "w", format="image2") as container:
            stream = container.add_stream(kind)
            stream.width, stream.height, stream.pix_fmt = 96, 160, {"png": "rgb24", "mjpeg": "yuvj420p"}[kind]
            frame = av.VideoFrame.from_ndarray(scene(), format="rgb24")
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
            container.mux(stream.encode())

    return make


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "is not a file"),
        (fifo, "is not a file"),
        (unix_socket, "is not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "is not a file"),
        (lambda path: path.symlink_to(path.name), "does not exist|cannot be read as a video"),
        (lambda path: path.touch(), "is empty"),
        (lambda path: path.write_bytes(bytes(4096)), "cannot be read as a video"),
        (lambda path: path.write_text("#EXTM3U\nother.mp4\n"), "cannot be read as a video"),
        (picture("png"), "is a picture, not a video"),
        (picture("mjpeg"), "is a picture, not a video"),
    ],
    ids=["none", "folder", "FIFO", "socket", "device", "circle", "empty", "zeros", "playlist", "PNG", "JPEG"],
)
def test_what_is_no_video_file_is_refused_at_once(tmp_path: Path, make: Callable[[Path], None], reason: str):
    make(tmp_path / "a.mp4")
    began = time.perf_counter()
    refused_by_all(tmp_path / "a.mp4", reason)
    assert time.perf_counter() - began < 5


def test_a_name_that_looks_like_an_address_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "other.mp4", greys(range(9)))
    monkeypatch.chdir(tmp_path)
    refused_by_all(Path("concat:other.mp4"), "does not exist")
    for name in ("concat:other.mp4", "%03d?é\udcff.mp4", "a#b c.mp4"):
        (tmp_path / name).write_bytes((tmp_path / "other.mp4").read_bytes())
        assert picture_size(Path(name)) == (32, 48)


def test_a_clip_that_breaks_off_gives_what_is_enough(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), np.uint8)
    path = write(tmp_path / "a.mp4", list(noise), container_options={"movflags": "+faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableClip, match=r"(is cut off after|breaks off).* 40 frames at 8 a second"):
        sample_frames(path, 40, 8, 64, 64)
    frames = sample_frames(path, 40, 8, 64, 64, fewest=5)
    assert 5 <= len(frames) < 30
    with pytest.raises(UnreadableClip, match="35 frames at 8 a second from 0 s need 4.25 s"):
        sample_frames(path, 40, 8, 64, 64, fewest=35)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """One of the ways that files break: bytes changed, lost, zeroed, repeated, or a length that is wild."""
    changed, place = bytearray(data), chance.randrange(len(data))
    stretch = slice(place, place + chance.randint(1, 200))
    match chance.randrange(5):
        case 0:
            for _ in range(chance.randint(1, 8)):
                changed[chance.randrange(len(data))] = chance.randrange(256)
        case 1:
            del changed[place:]
        case 2:
            changed[stretch] = bytes(len(changed[stretch]))
        case 3:
            wild = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\1")
            changed[place : place + 4] = chance.choice(wild)
        case 4:
            changed[place:place] = changed[stretch]
    return bytes(changed)


def test_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path):
    """150 damages, the same each time; no other exception, no traceback of a library, nothing slow."""
    turned = [1 << 16 if k == 1 else -(1 << 16) if k == 3 else 1 << 30 if k == 8 else 0 for k in range(9)]
    clip = [scene(64, 48)] * 9
    argb = av.VideoFrame.from_ndarray(scene(64, 48), format="rgb24").reformat(format="argb")
    files = [
        write(tmp_path / "a.mp4", [np.rot90(picture, 1) for picture in clip], matrix=turned),
        write(tmp_path / "b.mkv", clip, aspect=Fraction(2, 1)),
        write(tmp_path / "c.ts", clip),
        write(tmp_path / "d.mov", [yuv(picture, "yuv420p10le") for picture in clip], tags=(9, 9, 16, 1)),
        write(tmp_path / "e.avi", clip, codec="mpeg4"),
        write(tmp_path / "f.webm", clip, codec="libvpx-vp9"),
        write(tmp_path / "g.gif", [argb.reformat(format="rgb8")] * 9, codec="gif", tags=None),
        write(tmp_path / "h.mov", [argb] * 9, codec="qtrle", tags=None),
        write(tmp_path / "i.mp4", clip, options={"x264-params": "tff=1"}),
        write(tmp_path / "j.flv", clip, codec="flv"),
    ]
    chance, read, reasons = random.Random(21), 0, []
    for number in range(150):
        file = files[number % len(files)]
        path = tmp_path / f"damaged{file.suffix}"
        path.write_bytes(damaged(file.read_bytes(), chance))
        for name, reader in READERS.items():
            began = time.perf_counter()
            try:
                reader(path)
                read += 1
            except UnreadableClip as error:
                reasons.append(error.reason)
            except Exception as error:
                raise AssertionError(f"damage {number} of {file.name} gives {name} {error!r}") from error
            assert time.perf_counter() - began < 10, f"damage {number} of {file.name}"
    assert read > 100
    assert len(reasons) > 100
    assert max(map(len, reasons)) < 200
    assert "\n" not in "".join(reasons)
