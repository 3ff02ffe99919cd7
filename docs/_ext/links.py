"""Check the links within built HTML: `python docs/_ext/links.py DIRECTORY`.

Sphinx checks references while it builds. This looks at what came out: each relative link of a page leads to a file
that is there, and to an element that is in it.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = {""}
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of a tag."""
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value is not None:
                self.links.add(value)


def broken(directory: Path) -> list[str]:
    """Return what is wrong with the links between the pages of a directory."""
    pages = {path.resolve(): _Page(path) for path in sorted(directory.rglob("*.html"))}
    found: list[str] = []
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            shown = f"{path.relative_to(directory.resolve())}: {link}"
            if not target.is_file():
                found.append(f"{shown}: there is no such file")
            elif target in pages and unquote(parts.fragment) not in pages[target].anchors:
                found.append(f"{shown}: there is no such place")
    return found


if __name__ == "__main__":
    problems = broken(Path(sys.argv[1]))
    print("\n".join(problems) or "All internal links lead somewhere.")
    sys.exit(bool(problems))
