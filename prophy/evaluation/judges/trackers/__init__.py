"""From pixels to law errors: for every scene of the worlds, a tracker that knows the prompt and looks at the frames.

What a tracker may know: which scene the prompt asks for, its colours, its place, the setting, and the stage's geometry
(where the ground is, where a mirror stands). It never sees the simulator's state, so real renders and generated clips
are measured alike. A track that fails raises :class:`prophy.evaluation.judges.laws.TrackLost`; the caller counts it.

Lengths are stage units, so that tolerances mean the same at every size. Motion is looked at in steps of an eighth of a
second, and processes that fill a clip in steps of a sixteenth of it: they mean the same at every rate and length.

Shapes: F frames, H rows, W columns of the event's part of the stage; positions are (x, y) on the stage.
"""

from __future__ import annotations

# Each registers its trackers when it is imported: the order of LAWS.
from prophy.evaluation.judges.trackers import dynamics, thermodynamics, optics  # noqa: F401 isort: skip
from prophy.evaluation.judges.trackers.follow import Blob, follow
from prophy.evaluation.judges.trackers.register import LAWS, Law, law_errors, obeyed
from prophy.evaluation.judges.trackers.view import View, view_of

__all__ = ["LAWS", "Blob", "Law", "View", "follow", "law_errors", "obeyed", "view_of"]
