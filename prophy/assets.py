"""Where the shipped model and the shipped runs are, in a checkout and in an installed package."""

from __future__ import annotations

from pathlib import Path


def assets_dir() -> Path:
    """The folder that holds ``prophy-tiny/`` and ``gallery/``.

    A checkout (also one installed with ``pip install -e .``) has it beside the package, an installed wheel inside it.

    Raises:
        FileNotFoundError: the package was installed without its assets.
    """
    package = Path(__file__).resolve().parent
    for candidate in (package.parent / "assets", package / "_assets"):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"no assets beside {package}: install ProPhy from a full clone of its repository")


def default_model() -> Path:
    """The embedded model's folder, in the ordinary diffusers format."""
    return assets_dir() / "prophy-tiny"


def gallery_dir() -> Path:
    """The folder of shipped runs."""
    return assets_dir() / "gallery"
