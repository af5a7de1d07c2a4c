"""Sphinx settings."""

project = "trio-nt"
author = "the trio-nt authors"
copyright = "the trio-nt authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "examples"]
html_theme = "furo"
html_title = "trio-nt"
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "signature"


def setup(app):
    from pygments.lexers.special import TextLexer

    app.add_lexer("csv", TextLexer)
