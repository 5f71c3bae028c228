"""Sphinx's settings for the reference of the modules: CONTRIBUTING.md has the command."""

import prophy

project = "ProPhy"
release = version = prophy.__version__
extensions = ["sphinx.ext.apidoc", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

apidoc_modules = [
    {
        "path": "../../prophy",
        "destination": "generated",
        "separate_modules": True,
        "module_first": True,
        "automodule_options": {"members", "show-inheritance", "undoc-members"},
    }
]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
nitpicky = True
