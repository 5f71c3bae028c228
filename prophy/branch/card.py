"""The model card of a saved branch: what it is, what it fits, how to open it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prophy import phenomena
from prophy.branch.family import Family
from prophy.files import write_text

_CARD = """---
library_name: prophy
tags:
- text-to-video
- prophy
- mixture-of-experts
---

# A ProPhy branch

The physical branch of ProPhy ([arXiv 2512.05564](https://arxiv.org/abs/2512.05564)) for a text-to-video transformer of
[diffusers](https://github.com/huggingface/diffusers): experts that name the physics of a prompt and give each latent
token its own. It holds no backbone: open it beside its own.

| | |
|---|---|
| family | `{family}` |
| base model | {depth} blocks of width {width}, {channels} latent channels, text width {text} |
| this branch | {parameters:,} parameters |
| Physical Blocks | copies of blocks {sites}; residuals after {injections} |
| semantic experts | {semantic}, on a reference grid of {grid} |
| refinement experts | {refinement}, top-{top_k}, {form} |
| phenomena | `{version}`: {phenomena} |

```python
import prophy
pipeline = prophy.load("the base model's folder or hub id", branch="this folder or hub id")
frames = pipeline("a red ball bounces on the floor").frames[0]
```

Licence: the code is Apache-2.0. The Physical Blocks began as copies of the base model's blocks, so the base model's
licence applies to these weights too.

```bibtex
@inproceedings{{prophy2026,
  title     = {{ProPhy: Progressive Physical Alignment for Dynamic World Simulation}},
  booktitle = {{CVPR}},
  year      = {{2026}},
  note      = {{arXiv:2512.05564}}
}}
```
"""


def write_card(folder: str | Path, config: Mapping[str, Any], family: Family, parameters: int) -> None:
    """Write ``README.md`` beside a saved branch; an existing one is replaced whole or not at all.

    Args:
        folder: where the branch was saved.
        config: of the branch.
        family: of its backbone.
        parameters: of the branch.
    """
    backbone = config["backbone"]
    text = _CARD.format(
        family=family.name,
        depth=family.num_blocks(backbone),
        width=family.width(backbone),
        channels=family.channels(backbone),
        text=family.text_dim(backbone),
        parameters=parameters,
        sites=", ".join(str(site) for site in config["sites"]),
        injections=", ".join(str(site) for site in config["injections"] or config["sites"]),
        semantic=config["num_semantic_experts"],
        grid="×".join(str(size) for size in config["reference_grid"]),
        refinement=config["num_refinement_experts"],
        top_k=config["top_k"],
        form=config["refinement_form"],
        version=config["phenomena_version"],
        phenomena=", ".join(phenomenon.name for phenomenon in phenomena.PHENOMENA),
    )
    write_text(Path(folder) / "README.md", text)
