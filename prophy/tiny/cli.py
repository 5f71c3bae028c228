"""``prophy tiny STAGE``: the embedded model, made from nothing. For those who maintain it.

prophy tiny vae | text | transformer | branch | ship | vlm
"""

from __future__ import annotations

import importlib
import logging

STAGES = ("vae", "text", "transformer", "branch", "ship", "vlm")


def main(argv: list[str]) -> None:
    """Run one stage; each needs the ones before it.

    Raises:
        ValueError: unknown stage.
    """
    if not argv or argv[0] not in STAGES:
        raise ValueError(f"choose a stage of the embedded model: {', '.join(STAGES)}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    importlib.import_module(f"prophy.tiny.{argv[0]}").main(argv[1:])
