"""Imported once, by the process that the parts' are forked from: everything heavy, and nothing that touches a card."""

from contextlib import suppress

with suppress(Exception):  # what is wrong here each part says in its own words
    import gpu_parts.subjects  # noqa: F401
    import prophy.cli
    import prophy.generation.generate
    import prophy.training.trainable  # noqa: F401
