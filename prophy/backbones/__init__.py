"""Backbone families. Importing this package registers them with the branch."""

from prophy.backbones.wan import WAN

__all__ = ["WAN"]
