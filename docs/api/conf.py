"""Sphinx's settings for the API reference; CONTRIBUTING.md has the command that builds it.

The whole package but the app and the commands, which have ``--help``: one page a module, from the docstrings.
"""

from __future__ import annotations

import os
import typing
from collections.abc import Callable
from contextlib import suppress

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext.autodoc import Options
from sphinx.ext.napoleon import Config, GoogleDocstring

import prophy

#: what a module's page shows: what is documented, where it is defined
MEMBERS = ("members", "show-inheritance", "ignore-module-all")
os.environ["SPHINX_APIDOC_OPTIONS"] = ",".join(MEMBERS)  # Sphinx 9.0 reads a package's here, a module's below

project = "ProPhy"
release = version = prophy.__version__
extensions = ["sphinx.ext.apidoc", "sphinx.ext.autodoc"]
html_copy_source = False

apidoc_modules = [
    {
        "path": "../../prophy",
        "destination": "generated",
        "exclude_patterns": ["../../prophy/ui", "**/*cli.py", "**/__main__.py"],
        "separate_modules": True,
        "module_first": True,
        "automodule_options": set(MEMBERS),
    }
]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False  # not what torch says of forward()
autodoc_use_type_comments = False  # there are none, and looking for them takes a tenth of the time

# Every name that a docstring refers to must be there, but for errors of other libraries.
nitpicky = True
nitpick_ignore_regex = [("py:exc", r"(?!prophy\.).*")]
suppress_warnings = ["ref.python"]  # of a short name in an annotation, which several modules may define

SECTIONS = Config(napoleon_use_ivar=True)


def read_sections(app: Sphinx, what: str, name: str, described: object, options: Options, lines: list[str]) -> None:
    """Turn Args, Returns, Raises and Attributes into fields. A comment on data has none, though it may hold a colon."""
    if what not in ("attribute", "data", "property"):
        lines[:] = GoogleDocstring(lines, SECTIONS, app, what, name, described, options).lines()


def leave_out_ranges(app: Sphinx, described: Callable[..., object], is_bound: bool) -> None:
    """Print ``int`` for ``Annotated[int, …]``."""
    with suppress(NameError, TypeError, AttributeError):
        described.__annotations__ = typing.get_type_hints(described)


def print_type(
    app: Sphinx, env: BuildEnvironment, reference: nodes.Element, shown: nodes.TextElement
) -> nodes.TextElement | None:
    """What an annotation names need have no page: another library's types, type variables, private names."""
    kind, target = reference["reftype"], reference["reftarget"]
    is_ours = isinstance(shown, nodes.literal) and ("." not in target or target.startswith("prophy."))
    is_public = not any(name.startswith("_") for name in target.split("."))
    return shown if kind == "obj" or (kind == "class" and not (is_ours and is_public)) else None


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", read_sections)
    app.connect("autodoc-before-process-signature", leave_out_ranges)
    app.connect("missing-reference", print_type)
