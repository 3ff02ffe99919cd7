"""The `repr` of objects, which is short, and their HTML for notebooks. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from html import escape
from typing import Any, Final

from ._json import mapped, shown
from ._redaction import without_credentials

_MAX_LENGTH: Final = 400
"""Characters of a value in a `repr`."""

_MAX_TEXT: Final = 2000
"""Characters of a text within a value: outputs and logs can have millions."""

_LOG_SHOWN: Final = 20_000
"""Characters at the end of a long text that a notebook can unfold."""

_TABLE: Final = "border-collapse:collapse;margin:4px 0"
_NAME: Final = (
    "text-align:left;vertical-align:top;font-weight:600;padding:2px 12px 2px 0;background:none"
)
_VALUE: Final = "text-align:left;vertical-align:top;padding:2px 0;background:none;max-width:60em;overflow-wrap:anywhere"


class Html(str):
    """A text that is HTML, and needs no escaping."""

    __slots__ = ()


def short(value: object) -> str:
    """Return the `repr` of a value, with long texts and large containers shortened."""
    if isinstance(value, datetime):
        return repr(value.isoformat(timespec="seconds"))
    text = shown(shortened(value))
    return text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]}…"


def shortened(value: object) -> Any:
    """Return JSON with its long texts truncated, and without names and passwords in its URLs, for a `repr`."""
    return mapped(value, _shortened_leaf)


def _shortened_leaf(value: object) -> object:
    if isinstance(value, str):
        if len(value) > _MAX_TEXT:
            value = f"{value[: _MAX_TEXT // 2]}… ({len(value)} characters)"
        return without_credentials(value)
    if isinstance(value, bytes) and len(value) > _MAX_TEXT:
        return value[: _MAX_TEXT // 2] + b"... (%d bytes)" % len(value)
    return value


def short_repr(name: str, facts: Mapping[str, Any]) -> str:
    """Return a `repr` of some facts; those that are None or empty are left out."""
    pairs = (
        f"{key}={short(value)}" for key, value in facts.items() if value not in (None, "", {}, [])
    )
    return f"{name}({', '.join(pairs)})"


def as_html(value: object) -> Html:
    """Return a value as HTML; text as it is, other values by their short `repr`."""
    if isinstance(value, Html):
        return value
    if isinstance(value, datetime):
        value = value.isoformat(sep=" ", timespec="seconds")
    if isinstance(value, str):
        text = without_credentials(value)
        text = text if len(text) <= 1000 else f"{text[:1000]}…"
    else:
        text = short(value)
    return Html(escape(text).replace("\n", "<br>"))


def card(title: object, rows: Iterable[tuple[str, object]]) -> Html:
    """Return a table of names and values below a title; values that are None or empty are left out."""
    lines = [
        f'<tr style="background:none"><th style="{_NAME}">{escape(name)}</th><td style="{_VALUE}">{as_html(value)}</td></tr>'
        for name, value in rows
        if value not in (None, "", {}, [])
    ]
    return Html(
        f"<div><strong>{as_html(title)}</strong>"
        f'<table style="{_TABLE}"><tbody>{"".join(lines)}</tbody></table></div>'
    )


def listing(title: object, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Html:
    """Return a table with a heading for each column."""
    head = "".join(f'<th style="{_NAME}">{escape(name)}</th>' for name in columns)
    body = "".join(
        "<tr>"
        + "".join(f'<td style="{_VALUE};padding-right:12px">{as_html(value)}</td>' for value in row)
        + "</tr>"
        for row in rows
    )
    return Html(
        f'<div><strong>{as_html(title)}</strong><table style="{_TABLE}">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def link(url: str | None, text: str) -> Html:
    """Return a link, or the text alone if the URL is not one of a web page."""
    if url is None or not url[:8].lower().startswith(("https://", "http://")):
        return as_html(text)
    return Html(f'<a href="{escape(url)}">{escape(text)}</a>')


def folded(title: str, text: str) -> Html:
    """Return a text that a click unfolds; of a long one, its end."""
    if not text:
        return Html("")
    if len(text) > _LOG_SHOWN:
        text = f"…{text[-_LOG_SHOWN:]}"
    return Html(
        f"<details><summary>{escape(title)}</summary>"
        f'<pre style="max-height:24em;overflow:auto">{escape(text)}</pre></details>'
    )


def input_html(values: Mapping[str, Any]) -> Html:
    """Return the inputs of a model as HTML, one on each line."""
    lines = [f"<code>{escape(name)}</code> {as_html(value)}" for name, value in values.items()]
    return Html("<br>".join(lines))


def value_of(item: object, name: str) -> object:
    """Return a fact of an object; an empty text if it has none."""
    value = getattr(item, name, None)
    return "" if value is None else value


def name_of(item: object) -> str:
    """Return what identifies an object of the API."""
    for name in ("full_name", "id", "slug", "sku", "name"):
        if isinstance(found := getattr(item, name, None), str):
            return found
    return short(item)
