"""The door to the embedded model's own training.

prophy train tiny-vae | tiny-text | tiny-transformer | tiny-branch | tiny-ship | tiny-vlm
"""

from __future__ import annotations

import importlib
import logging

STAGES = ("tiny-vae", "tiny-text", "tiny-transformer", "tiny-branch", "tiny-ship", "tiny-vlm")


def main(argv: list[str]) -> None:
    """Run one stage; each needs the ones before it.

    Raises:
        ValueError: unknown stage.
    """
    if not argv or argv[0] not in STAGES:
        raise ValueError(f"choose a stage: {', '.join(STAGES)}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    importlib.import_module(f"prophy.training.{argv[0].replace('-', '_')}").main(argv[1:])
