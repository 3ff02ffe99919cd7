"""What Sphinx is taught for these docs: the package's docstrings, its names, its command line, and llms.txt."""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from command_line import describe
from docstrings import to_rst
from docutils import nodes
from inventories import EXTERNAL
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.ext.napoleon import GoogleDocstring
from sphinx.util import logging

import replicate_async
from replicate_async import exceptions, sync, testing, types
from replicate_async.__main__ import parser

_logger = logging.getLogger(__name__)

_CONSTRUCTED = frozenset({"Client", "Timeout", "Retry", "Limits", "RateLimit", *testing.__all__})
"""Classes that users make themselves; the signatures of the others would only distract."""
_NAMESPACES = (
    *("accounts", "collections", "deployments", "files", "hardware"),
    *("models", "predictions", "trainings", "webhooks"),
)
_RETURNED = {
    "ModelFunction": ("FunctionRun", "StreamingRun"),
    "Model": ("OwnVersions", "OwnPredictions", "OwnExamples", "OwnReadme"),
    "SearchResults": ("ModelMatch",),
}
"""Classes that are returned but not exported, by a class of the same module."""
_CLASSES = frozenset({"class", "exception"})
_ATTRIBUTES = frozenset({"attribute", "data", "property"})
_ALIASES = {
    "ssl_module.SSLContext": "ssl.SSLContext",
    "aiohttp.web_request.BaseRequest": "aiohttp.web.BaseRequest",
    "aiohttp.web_response.StreamResponse": "aiohttp.web.StreamResponse",
    "builtins.list": "list",
}


def setup(app: Sphinx) -> dict[str, bool]:
    """Register everything."""
    for name in _NAMESPACES:
        setattr(sync, name, _plain(getattr(sync, name)))
    for module in (replicate_async, sync):
        for name, found in _returned(module).items():
            setattr(module, name, found)
    app.add_role("api", _api)
    app.connect("source-read", _add_command_line)
    app.connect("autodoc-process-docstring", _translate, priority=400)  # before napoleon
    app.connect("autodoc-process-signature", _shorten)
    app.connect("autodoc-process-docstring", _restore, priority=600)  # after it
    app.connect("doctree-read", _qualify)
    app.connect("build-finished", _write_llms_txt)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


# -- The role `api` ----------------------------------------------------------------------------


def _api(
    name: str, rawtext: str, text: str, lineno: int, inliner: Any, *_: object
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """Link to an operation or a section of the HTTP API's reference, with its heading as the text."""
    reference = addnodes.pending_xref(
        rawtext,
        nodes.inline(rawtext, text, classes=["xref", "std", "std-ref"]),
        refdoc=inliner.document.settings.env.docname,
        refdomain="std",
        reftype="ref",
        reftarget=f"api-{text}",
        refexplicit=False,
        refwarn=True,
    )
    reference.source, reference.line = inliner.reporter.get_source_and_line(lineno)
    return [reference], []


# -- Docstrings --------------------------------------------------------------------------------

_read: dict[str, list[str]] = {}


def _translate(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Translate a docstring, before napoleon reads it."""
    names = _public(is_sync=name.startswith(sync.__name__))
    links = {each: full for each, full in names.items() if isinstance(_located(full), type)}
    try:
        lines[:] = to_rst(lines, links)
    except ValueError as error:
        _logger.warning("docstring of %s: %s", name, error)
    if what in _ATTRIBUTES:
        _read[name] = GoogleDocstring(lines, app.config, app, "method", name, obj, options).lines()


def _restore(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Undo what napoleon does to attributes: it takes a text before a colon for a type."""
    if what in _ATTRIBUTES:
        lines[:] = _read.pop(name)


def _shorten(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str, returns: str
) -> tuple[str, str] | None:
    """Leave out the signatures of classes that users do not construct."""
    if signature and what in _CLASSES and name.rpartition(".")[2] not in _CONSTRUCTED:
        return "", returns
    return None


def _plain(namespace: object) -> SimpleNamespace:
    """Return a namespace of the sync twin with a `__dict__`, which autodoc looks into and twins lack."""
    found = {name: getattr(namespace, name) for name in dir(namespace) if name[0] != "_"}
    return SimpleNamespace(
        **{name: each if callable(each) else _plain(each) for name, each in found.items()}
    )


# -- Names -------------------------------------------------------------------------------------


@cache
def _public(*, is_sync: bool) -> dict[str, str]:
    """Return the public names of the package, and their full names, where they are documented."""
    modules = [testing, exceptions, types, replicate_async, *([sync] if is_sync else [])]
    names: dict[str, str] = {}
    for module in modules:
        names |= {name: f"{module.__name__}.{name}" for name in module.__all__}
        names |= {name: f"{module.__name__}.{name}" for name in _returned(module)}
    # What the other modules export, too, is documented in this one.
    names |= {name: f"{exceptions.__name__}.{name}" for name in exceptions.__all__}
    data = (name for name in types.__all__ if name in names)
    top = set(replicate_async.__all__)
    names |= {
        name: f"{(replicate_async if name in top else types).__name__}.{name}" for name in data
    }
    return names


def _returned(module: ModuleType) -> dict[str, object]:
    """Return the classes that a module's functions return without exporting them."""
    if module not in (replicate_async, sync):
        return {}
    return {
        name: getattr(sys.modules[getattr(module, neighbour).__module__], name)
        for neighbour, names in _RETURNED.items()
        for name in names
    }


@cache
def _located(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(sys.modules.get(module), attribute, None)


def _qualify(app: Sphinx, doctree: nodes.document) -> None:
    """Let references lead to public names, wherever in the package an object is defined."""
    for node in doctree.findall(addnodes.pending_xref):
        if node.get("refdomain") != "py":
            continue
        target: str = node["reftarget"]
        is_sync = ".sync." in target or str(node.get("py:module")).startswith(sync.__name__)
        name = target.rpartition(".")[2]
        if "." not in target or target.startswith("replicate_async."):
            public = _public(is_sync=is_sync).get(name)
            if public and ("." not in target or _located(target) is _located(public)):
                node["reftarget"] = public
                node.attributes.pop("refspecific", None)
                continue
            if name in _namespaces():
                label = f"{'sync-' if is_sync else ''}namespace-{_namespaces()[name]}"
                node.update_basic_atts({})
                node.attributes.update(refdomain="std", reftype="ref", reftarget=label)
                node["refexplicit"] = True
                continue
        # In annotations, names of other projects stand as a module has imported them.
        target = _ALIASES.get(target, target)
        if "." not in target:
            target = next((n for n in EXTERNAL if n.endswith(f".{target}")), target)
        node["reftarget"] = target


@cache
def _namespaces() -> dict[str, str]:
    """Return the classes of the namespaces, and what they are called on a client."""
    client = replicate_async.Client("token")
    return {type(getattr(client, name)).__name__: name for name in _NAMESPACES}


# -- The command line --------------------------------------------------------------------------


def _add_command_line(app: Sphinx, docname: str, source: list[str]) -> None:
    if docname == "reference/command-line":
        source[0] = source[0].replace("<!-- commands -->", describe(parser()))


# -- llms.txt ----------------------------------------------------------------------------------

_SUMMARY = re.compile(r'^\s+description: "(.*)"$', re.MULTILINE)
_PART = re.compile(r"^:caption: (.*)$|^([\w/-]+)$", re.MULTILINE)


def _write_llms_txt(app: Sphinx, failure: Exception | None) -> None:
    """Write an index of the pages for language models, see https://llmstxt.org."""
    if failure is not None or app.builder.name != "html":
        return
    source = Path(app.srcdir)
    root = app.config.html_baseurl
    lines = [f"# {app.config.project}", "", f"> {_summary(source / 'index.md')}"]
    for caption, pages in _contents(source / "index.md"):
        lines += ["", f"## {caption}", ""]
        for page in pages:
            title = app.env.titles[page].astext()
            lines.append(f"- [{title}]({root}{page}.html): {_summary(source / f'{page}.md')}")
    (Path(app.outdir) / "llms.txt").write_text("\n".join(lines) + "\n", "utf-8")


def _summary(file: Path) -> str:
    found = _SUMMARY.search(file.read_text("utf-8"))
    if found is None:
        raise ValueError(f"{file} has no description in its front matter")
    return found[1].replace('\\"', '"')


def _contents(index: Path) -> list[tuple[str, list[str]]]:
    """Return the captions of the index's tables of contents, with their pages."""
    contents: list[tuple[str, list[str]]] = []
    for block in re.findall(
        r"^```\{toctree\}\n(.*?)^```$", index.read_text("utf-8"), re.MULTILINE | re.DOTALL
    ):
        for caption, page in _PART.findall(block):
            if caption:
                contents.append((caption, []))
            elif page:
                contents[-1][1].append(page)
    return contents
