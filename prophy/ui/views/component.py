"""The page's own components. Each is one gr.HTML: a fixed template, scripts in ``static/`` and a JSON value.

Nothing that a visitor typed is ever part of a template: gradio compiles templates as JavaScript, where even escaped
text could run. The scripts set text as text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

STATIC = Path(__file__).parent / "static"
_PART = re.compile(r"^ *<!-- part: (\w+) -->\n", re.MULTILINE)  # a file that several templates, or halves of one, share


def component(
    name: str,
    scripts: Sequence[str],
    value: Any = None,
    *,
    elem_id: str | None = None,
    server_functions: Sequence[Callable] = (),
) -> gr.HTML:
    """Build a component.

    Args:
        name: of its template in ``static/``, without ``.html``.
        scripts: files of ``static/``, run in this order, as one, when the component is on the page. They are given
            ``element``, ``props``, ``trigger``, ``watch`` and ``server``.
        value: what it shows at first; JSON.
        elem_id: in the page; by default the name with dashes.
        server_functions: what its scripts may call as ``server.<name>(argument)``. Anyone can: they trust nothing.
    """
    return gr.HTML(
        value=value,
        html_template=template(name),
        js_on_load="\n".join((STATIC / script).read_text(encoding="utf-8") for script in scripts),
        apply_default_css=False,
        elem_id=elem_id or name.replace("_", "-"),
        server_functions=list(server_functions) or None,
    )


def template(name: str) -> str:
    """The HTML of a component, its shared parts in their places."""
    text = (STATIC / f"{name}.html").read_text(encoding="utf-8")
    return _PART.sub(lambda found: (STATIC / f"{found[1]}.html").read_text(encoding="utf-8"), text)
