"""How OpenMP threads wait: asleep, not spinning (no torch)."""

from __future__ import annotations

import os


def wait_without_spinning() -> None:
    """Let OpenMP's threads sleep while they wait, instead of spinning; call it before torch is imported.

    A step of a small model has thousands of waits. Beside another busy process a spinning thread takes the core that
    the one it waits for needs: benchmarks/neighbours.py measures it. Fewer threads would help as well, but the last
    bits of a clip depend on how many there are; how they wait changes nothing.

    What the environment says already stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
