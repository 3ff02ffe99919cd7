"""HTML of output files for notebooks. It embeds their content if that is known, since their URLs expire."""

from __future__ import annotations

import base64
import re
import threading
from collections import OrderedDict
from html import escape
from typing import Any, Final

from .._display import Html, as_html
from .media import sniff

EMBEDDED: Final = 8 * 2**20
"""Size in bytes of the largest file that is embedded in a notebook."""

_KEPT: Final = 64 * 2**20
"""Bytes of files that are kept in memory after they were read."""

MAX_SHOWN: Final = 100
"""Files of a gallery that are shown."""

_GALLERY_EMBEDDED: Final = 4 * EMBEDDED
"""Characters of HTML after which the further files of a gallery are shown as links."""

_MEDIA_TYPE: Final = re.compile(r"[a-z]+/[a-z0-9.+-]+")


class RecentContent:
    """The content of files that were read last, by URL; bounded."""

    def __init__(self, max_bytes: int = _KEPT) -> None:
        self._max_bytes = max_bytes
        self._size = 0
        self._contents: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, url: str, content: bytes) -> None:
        """Remember the content of a file, unless it is too large to be embedded."""
        with self._lock:
            self._size -= len(self._contents.pop(url, b""))
            if len(content) > EMBEDDED:
                return
            self._contents[url] = content
            self._size += len(content)
            while self._size > self._max_bytes:
                self._size -= len(self._contents.popitem(last=False)[1])

    def get(self, url: str) -> bytes | None:
        """Return the content of a file; None if it is not remembered."""
        with self._lock:
            return self._contents.get(url)


def media_html(url: str, name: str, content_type: str | None, content: bytes | None) -> Html | None:
    """Return HTML that shows a file: the picture, a player, or a link; None for a URL that is no web page.

    Args:
        url: URL of the file.
        name: Name of the file.
        content_type: Media type, if known.
        content: The content to embed, if known.
    """
    scheme = url.partition(":")[0].lower()
    if scheme not in ("https", "http", "data"):
        return None
    if content is not None and content_type is None:
        content_type = sniff(content)
    kind = (content_type or "").partition("/")[0]
    source = escape(url)
    if content is not None and _MEDIA_TYPE.fullmatch(content_type or ""):
        source = f"data:{content_type};base64,{base64.b64encode(content).decode()}"
    if kind == "image":
        return Html(f'<img src="{source}" alt="{escape(name)}" style="max-width:100%">')
    if kind in ("audio", "video"):
        return Html(f'<{kind} src="{source}" style="max-width:100%" controls></{kind}>')
    return None if scheme == "data" else Html(f'<a href="{escape(url)}">{escape(name)}</a>')


class Gallery(list[Any]):
    """A list of outputs with files in it, which a notebook shows side by side."""

    __slots__ = ()

    def copy(self) -> Gallery:
        """Return a shallow copy."""
        return Gallery(self)

    def _repr_html_(self) -> str:
        """Return what a notebook displays: the files side by side."""
        shown, size = [], 0
        for item in self[:MAX_SHOWN]:
            file = getattr(item, "_repr_mimebundle_", None)
            if file is None or size > _GALLERY_EMBEDDED:
                html = as_html(item if isinstance(item, str) else str(item))
            else:
                html = file().get("text/html") or as_html(str(item))
            size += len(html)
            shown.append(
                f'<div style="max-width:256px;max-height:320px;overflow:hidden">{html}</div>'
            )
        if len(self) > MAX_SHOWN:
            shown.append(f"<div>… and {len(self) - MAX_SHOWN} more</div>")
        return f'<div style="display:flex;flex-wrap:wrap;gap:8px">{"".join(shown)}</div>'


def output_html(output: Any) -> Html:
    """Return HTML that shows an output: its files, or text."""
    if isinstance(output, Gallery):
        return Html(output._repr_html_())
    file = getattr(output, "_repr_mimebundle_", None)
    html = None if file is None else file().get("text/html")
    return Html(html) if html else as_html("" if output is None else output)
