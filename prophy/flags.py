"""Flags of the commands (no torch)."""

from __future__ import annotations

import argparse


def given(arguments: argparse.Namespace, *names: str) -> dict:
    """The flags among ``names`` that were given, by name; the others keep the defaults of what takes them."""
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}
