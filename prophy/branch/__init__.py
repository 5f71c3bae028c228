"""The method: the physical branch, its losses, and how it attaches to a stock transformer."""

from prophy.branch.attach import Attachment, attach, check_fits, inject
from prophy.branch.model import ProPhyBranch

__all__ = ["Attachment", "ProPhyBranch", "attach", "check_fits", "inject"]
