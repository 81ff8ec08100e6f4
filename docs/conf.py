"""Sphinx's configuration, for `make docs`.

Sources are read from the repository's root, not from docs/ alone. So README, the notebooks and benchmarks/README are
pages where they are, and a relative link between any two of them leads to the same page here and in the repository.
"""

import inspect

project = "NormShift"
author = "The NormShift authors"
copyright = author
html_title = "NormShift"

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_nb"]
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/**",
    "notebooks/*.ipynb",
    "benchmarks/README.md",
    "experiments/**/README.md",
]

html_theme = "furo"
html_additional_pages = {"index": "redirect.html"}  # the site's own address leads to docs/index.html
templates_path = ["."]
html_static_path = ["style.css"]
html_css_files = ["style.css"]
highlight_language = "none"  # of code that does not name its language: commands
html_show_copyright = False
html_copy_source = False
pygments_style = "friendly"

nb_execution_mode = "off"  # they are committed with what they showed
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]

default_role = "py:obj"  # `name` in a docstring is a link where the name is documented, else plain code
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_type_aliases = {"Where": "Where"}
nb_render_markdown_format = "myst"  # with tables
napoleon_use_rtype = False
napoleon_use_ivar = True
nitpick_ignore_regex = [
    ("py:obj", ".*"),  # the role of a plain `name`
    ("py:.*", r"(torch|collections|pathlib|types)\..*"),  # other projects' pages: the build needs no network
    ("py:.*", r"normshift\.backends\..*"),  # what the engine asks of a formula is not for users
    ("py:class", r"Tensor|Module|nn\.Module|Path|Where|optional"),
]


def setup(app):
    app.connect("autodoc-process-signature", signature_of_init)


def signature_of_init(app, what, name, obj, options, signature, returns):
    """A class that has a `__new__` as well is still called as its `__init__` says."""
    if what == "class" and signature and signature.startswith("(*args"):
        parameters = list(inspect.signature(obj.__init__).parameters.values())[1:]
        return str(inspect.Signature(parameters)), returns
    return None
