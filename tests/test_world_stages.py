"""Worlds at any size, length and rate: the default stage is as it always was, others obey the same rules."""

import hashlib
import json
from pathlib import Path

import numpy as np

from prophy.worlds import Clip, sample_clip

#: "split seed phenomena" -> digest, of clips that the first generation of the embedded model was taught on
DIGESTS = json.loads(Path(__file__).with_name("world_digests.json").read_text())


def digest(clip: Clip) -> str:
    """Of everything a clip holds."""
    whole = hashlib.sha256(clip.frames.tobytes() + clip.caption.encode())
    for name, mask in sorted(clip.masks.items()):
        whole.update(name.encode() + mask.tobytes())
    for state in clip.states:
        for name, values in sorted(state.items()):
            whole.update(name.encode() + np.ascontiguousarray(values).tobytes())
    return whole.hexdigest()[:16]


def test_the_default_stage_gives_the_clips_it_always_gave_bit_for_bit():
    changed = []
    for key, expected in DIGESTS.items():
        split, seed, *phenomena = key.split()
        clip = sample_clip(int(seed), split, *([tuple(phenomena)] if phenomena else []))
        if digest(clip) != expected:
            changed.append(key)
    assert len(DIGESTS) >= 80
    assert not changed
