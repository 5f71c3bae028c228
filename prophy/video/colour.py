"""Colours as a file means them, in the 8-bit sRGB that everything else works in.

A file says its matrix, range, primaries and transfer by the numbers of ITU-T H.273. FFmpeg undoes matrix and range.
Primaries and transfer are done here, in linear light from 16 bits: FFmpeg's scaler clips all that is brighter than the
white of a page and takes two seconds a file to begin, and zscale and libplacebo are not in PyAV's wheels.

- Ordinary video (BT.709, BT.601, sRGB, a plain gamma) is shown as it is. As in mpv, so are the primaries of BT.601:
  they are too near to BT.709's for the difference to be meant.
- The primaries of BT.2020 and P3 become BT.709's.
- HDR (BT.2100's PQ and HLG) is tone-mapped: what is no brighter than three quarters of the white of a page, 203 cd/m²
  (BT.2408), gets the values it has in ordinary video; what is brighter is drawn together, up to 1,000 cd/m² at 255.
- Anything else (linear, logarithmic, cinema's XYZ, constant luminance) is refused by its number.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

_UNSAID = frozenset((0, 2, 3))  # unspecified or reserved; a matrix of 0 is that of RGB
_BT601, _BT709, _BT2020 = 5, 1, 9
_MATRICES = frozenset((1, 4, 5, 6, 7, 9))
_PRIMARIES = frozenset((1, 4, 5, 6, 7, 8, 22))  # near enough to BT.709's
_TRANSFERS = frozenset((1, 4, 5, 6, 7, 11, 12, 13, 14, 15))
_SRGB, _PQ, _HLG = 13, 16, 18

_P3_TO_BT709 = ((1.2249, -0.2249, 0), (-0.0420, 1.0420, 0), (-0.0197, -0.0786, 1.0983))
_TO_BT709 = {
    _BT2020: ((1.6605, -0.5877, -0.0728), (-0.1246, 1.1330, -0.0084), (-0.0182, -0.1006, 1.1188)),  # BT.2087
    11: _P3_TO_BT709,
    12: _P3_TO_BT709,
}

_WHITE = 203.0  # cd/m² of a page's white in HDR (BT.2408, table 1), where HLG's scene light is 0.265
_HLG_WHITE = 0.265
_KNEE, _BRIGHTEST = 0.75, 1000 / _WHITE  # of tone mapping, in whites
# Exact arithmetic: FFmpeg's fast path is up to three levels out. Colour that is stored for two by two pixels is theirs
# alone, as in the fast path and in enlarged clips; bilinear makes 16-bit RGB that is wrong by a hundred levels.
_EXACTLY = Interpolation.POINT | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


class Colours(NamedTuple):
    """What a frame's numbers mean, by H.273: ``matrix`` (None for RGB), ``primaries`` and ``transfer``."""

    matrix: int | None
    primaries: int
    transfer: int

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Colours:
        """Read from a frame; what it does not say is guessed as players do, the matrix from the size (as mpv).

        Raises:
            ValueError: the frame has colours that are not read here.
        """
        matrix, primaries, transfer = frame.colorspace, frame.color_primaries, frame.color_trc
        hdr = transfer in (_PQ, _HLG)
        transfer = _BT709 if transfer in _UNSAID else transfer
        primaries = (_BT2020 if hdr else _BT709) if primaries in _UNSAID else primaries
        if frame.format.is_rgb:
            matrix = None
        elif matrix in _UNSAID:
            large = frame.width >= 1280 or frame.height > 576
            matrix = _BT2020 if primaries == _BT2020 else _BT709 if large else _BT601
        for name, number, known in (
            ("matrix", matrix, _MATRICES | {None}),
            ("primaries", primaries, _PRIMARIES | _TO_BT709.keys()),
            ("transfer", transfer, _TRANSFERS | {_PQ, _HLG}),
        ):
            if number not in known:
                raise ValueError(f"has colours that are not read here ({name} {number} of H.273): convert it to BT.709")
        return cls(matrix, primaries, transfer)

    @property
    def ordinary(self) -> bool:
        """Nothing to do but matrix and range."""
        return self.primaries in _PRIMARIES and self.transfer in _TRANSFERS

    def pixels(self, frame: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
        """A frame's RGB as coded, (H, W, 3), on black where it is transparent: 8 bits if ordinary, else 16."""
        transparent = frame.format.has_palette or any(component.is_alpha for component in frame.format.components)
        name = ("rgba" if transparent else "rgb24") if self.ordinary else ("rgba64le" if transparent else "rgb48le")
        rgb = reformatter.reformat(frame, format=name, src_colorspace=self.matrix, interpolation=_EXACTLY)
        pixels = rgb.to_ndarray()
        if not transparent:
            return pixels
        opacity = pixels[..., 3:] / np.float32(np.iinfo(pixels.dtype).max)
        return np.rint(pixels[..., :3] * opacity).astype(pixels.dtype)

    def to_srgb(self, pixels: np.ndarray) -> np.ndarray:
        """8-bit sRGB of 16-bit pixels, (H, W, 3)."""
        light = _light(self.transfer)[pixels]
        if self.primaries in _TO_BT709:
            light = cv2.transform(light, np.array(_TO_BT709[self.primaries], np.float32))
        written = self.transfer
        if self.transfer in (_PQ, _HLG):
            written = _SRGB
            brightest = np.maximum(light.max(-1, keepdims=True), 1e-6)
            light *= _tone(brightest) / brightest  # all three alike, which keeps the hue
        return _codes(written)[np.rint(65535 * light.clip(0, 1)).astype(np.uint16)]


def _tone(light: np.ndarray) -> np.ndarray:
    """Identity up to the knee; above it Reinhard's curve (2002, eq. 4), which takes the brightest to 1."""
    above = np.maximum(light - _KNEE, 0) / (1 - _KNEE)
    top = (_BRIGHTEST - _KNEE) / (1 - _KNEE)
    return np.minimum(light, _KNEE) + (1 - _KNEE) * above * (1 + above / top**2) / (1 + above)


@cache
def _light(transfer: int) -> np.ndarray:
    """Linear light of each 16-bit value, 1 = white: of a page for HDR.

    HLG is light of the scene, which a display adapts. One whose page is as bright as an ordinary display's, 100 cd/m²,
    peaks at 377 cd/m²; its system gamma, 1.2 + 0.42 log10(377/1000) = 1.02 (BT.2100, table 5), is taken as 1.
    """
    value = np.linspace(0, 1, 65536)
    if transfer == _PQ:  # SMPTE ST 2084
        power = value ** (1 / 78.84375)
        light = (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
        light *= 10_000 / _WHITE
    elif transfer == _HLG:
        light = np.where(value <= 0.5, value**2 / 3, (np.exp((value - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        light /= _HLG_WHITE
    elif transfer == _SRGB:
        light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    else:
        light = np.where(value < 0.081, value / 4.5, ((value + 0.099) / 1.099) ** (1 / 0.45))
    return light.astype(np.float32)


@cache
def _codes(transfer: int) -> np.ndarray:
    """8-bit values of linear light in 16 bits."""
    light = np.linspace(0, 1, 65536)
    if transfer == _SRGB:
        value = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    else:
        value = np.where(light < 0.018, 4.5 * light, 1.099 * light**0.45 - 0.099)
    return np.rint(255 * value).astype(np.uint8)
