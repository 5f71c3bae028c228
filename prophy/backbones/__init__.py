"""Backbone families. Importing this package registers them."""

from prophy.backbones.backbone import Backbone, StepInputs, backbone_of, register
from prophy.backbones.cogvideox import COGVIDEOX
from prophy.backbones.wan import WAN

for _backbone in (WAN, COGVIDEOX):
    register(_backbone)

__all__ = ["COGVIDEOX", "WAN", "Backbone", "StepInputs", "backbone_of", "register"]
