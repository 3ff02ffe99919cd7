"""How the documentation is built: `nox -s docs`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from inventories import write_inventories

import replicate_async

project = "replicate_async"
copyright = "The authors of replicate_async"  # noqa: A001 - named by Sphinx
version = release = replicate_async.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "replicate_docs",
]
exclude_patterns = ["_build"]
nitpicky = True

# -- Pages -------------------------------------------------------------------------------------

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
highlight_language = "text"
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True

# -- Docstrings --------------------------------------------------------------------------------

autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "inherited-members": True}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autoclass_content = "both"
add_module_names = False
maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

# -- Links to other projects -------------------------------------------------------------------

# Each inventory has a fallback that holds only the names that these docs refer to. Without a network, or with
# DOCS_OFFLINE set, the fallbacks are used, and a reference that is in neither is still an error.
_ONLINE = not os.environ.get("DOCS_OFFLINE")
intersphinx_mapping = {
    name: (url, (None, str(file)) if _ONLINE else (str(file),))
    for name, (url, file) in write_inventories(
        Path(__file__).parent / "_build" / "inventories"
    ).items()
}
intersphinx_timeout = 5

# -- HTML --------------------------------------------------------------------------------------

html_theme = "furo"
html_title = f"replicate_async {release}"
pygments_dark_style = "github-dark"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_baseurl = os.environ.get("READTHEDOCS_CANONICAL_URL", "")
html_search_scorer = str(Path(__file__).parent / "_ext" / "scorer.js")
html_copy_source = False
html_show_sphinx = False
