"""Backbone families. Importing this package registers them with the branch."""

from prophy.backbones.cogvideox import COGVIDEOX
from prophy.backbones.wan import WAN

__all__ = ["COGVIDEOX", "WAN"]
