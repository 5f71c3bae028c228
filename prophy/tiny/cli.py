"""``prophy tiny STAGE``: the embedded model, made from nothing. For those who maintain it.

    prophy tiny vae | text | ship | vlm

Transformer and branch are trained by ``prophy train --recipe tiny_transformer`` and ``tiny_together``, between ``text``
and ``ship``.
"""

from __future__ import annotations

import importlib
import logging

STAGES = ("vae", "text", "ship", "vlm")
_TRAINED = {"transformer": "tiny_transformer", "branch": "tiny_together"}


def main(argv: list[str]) -> None:
    """Run one stage; each needs the ones before it.

    Raises:
        ValueError: unknown stage.
    """
    if argv and argv[0] in _TRAINED:
        raise ValueError(
            f"the {argv[0]} is trained by prophy train --recipe {_TRAINED[argv[0]]}: see prophy train --help"
        )
    if not argv or argv[0] not in STAGES:
        raise ValueError(f"choose a stage of the embedded model: {', '.join(STAGES)}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    importlib.import_module(f"prophy.tiny.{argv[0]}").main(argv[1:])
