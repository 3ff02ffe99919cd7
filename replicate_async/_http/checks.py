"""Checks what calls are made with: base URL, paths, headers and token; finds the token of the environment."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

from .. import exceptions
from .._arguments import string
from .._redaction import without_user

_logger = logging.getLogger("replicate_async")

DEFAULT_BASE_URL: Final = "https://api.replicate.com"

_TOKEN_MISTAKES: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), reason)
    for pattern, reason in (
        (
            r"[\r\n]",
            "there is a line break within the token: pass a single line, the token alone",
        ),
        (
            r"\A[\"'`\u2018-\u201f]?\s*(export\s+|set\s+|env\s+)?\w*TOKEN\s*[=:]",
            "the name of the variable is a part of the token: pass what comes after 'REPLICATE_API_TOKEN='",
        ),
        (
            r"\A[\"'`\u2018-\u201f]?\s*(authorization\s*:\s*)?(bearer\Z|(bearer|token)[\s:])",
            "there is 'Bearer' or 'Token' in front of the token: pass the token alone",
        ),
        (
            r"\A[\"'`\u2018-\u201f]|[\"'`\u2018-\u201f]\Z",
            "there are quotes around the token: pass it without them",
        ),
    )
)


def check_prefix(prefix: str) -> str:
    """Return the path below the base URL that all paths begin with.

    Raises:
        ArgumentError: It is not a path.
    """
    path = string(prefix, "api_prefix").rstrip("/")
    if path:
        check_path(path, "api_prefix")
    if "?" in path:
        raise exceptions.ArgumentError("api_prefix", f"{prefix!r} has a query")
    return path


def check_path(path: str, argument: str = "path") -> str:
    """Return a path below the API's root, with an optional query.

    Raises:
        ArgumentError: It is a URL, or leads out of the API, where the token must not be sent.
    """
    if not string(path, argument).startswith("/") or path.startswith("//"):
        raise exceptions.ArgumentError(
            argument, f"expected a path of the API such as '/models/owner/name', got {path[:200]!r}"
        )
    if any(not "!" <= character <= "~" or character in "\\#" for character in path):
        raise exceptions.ArgumentError(
            argument, f"{path[:200]!r} has characters that must be percent-encoded"
        )
    segments = unquote(unquote(path.partition("?")[0])).replace("\\", "/").split("/")
    if "." in segments or ".." in segments:
        raise exceptions.ArgumentError(argument, f"{path[:200]!r} has '.' or '..' in it")
    return path


def check_base_url(url: str, prefix: str = "/v1") -> str:
    """Return a base URL in the form that `Config` holds, without the prefix.

    Raises:
        ArgumentError: *url* is not an HTTP or HTTPS URL.
    """
    url = string(url, "base_url").strip().rstrip("/")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        parts, usable = urlsplit(""), False
    if not usable or parts.query or parts.fragment or any(c.isspace() for c in url):
        raise exceptions.ArgumentError(
            "base_url", f"expected a URL such as {DEFAULT_BASE_URL!r}, got {without_user(url)!r}"
        )
    if prefix and parts.path.endswith(prefix):
        url = url.removesuffix(prefix)
    return url


def check_token(token: object) -> str:
    """Return an API token without surrounding white space.

    Raises:
        ArgumentError: The token contains characters that a header cannot hold, or something that is not part of it,
            such as quotes or `Bearer`.
        MissingToken: The token is empty.
    """
    plain = string(token, "api_token").strip()
    if not plain:
        raise exceptions.MissingToken
    # The token itself must not appear in a message.
    for pattern, reason in _TOKEN_MISTAKES:
        if pattern.search(plain):
            raise exceptions.ArgumentError("api_token", reason)
    if not all("!" <= character <= "~" for character in plain):
        raise exceptions.ArgumentError(
            "api_token", "the token contains spaces, control characters or non-ASCII characters"
        )
    return plain


def check_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of headers.

    Raises:
        ArgumentError: A name or value contains characters that a header cannot hold.
    """
    if not isinstance(headers, Mapping):
        raise exceptions.ArgumentTypeError(
            "headers", f"expected a mapping, got {type(headers).__name__}"
        )
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise exceptions.ArgumentTypeError("headers", f"{name!r} and its value must be strings")
        if (
            not name
            or any(not "!" <= c <= "~" or c == ":" for c in name)
            or any((c < " " and c != "\t") or c == "\x7f" for c in value)
        ):
            raise exceptions.ArgumentError(
                "headers", f"{name!r} or its value contains characters that a header cannot hold"
            )
    return dict(headers)


def environment_token() -> str | None:
    """Return the token of the current Cog scope, or else of the environment."""
    # In a model that Cog runs, Cog was imported.
    cog = sys.modules.get("cog")
    if cog is not None:
        try:
            context = cog.current_scope().context
            for name, value in context.items():
                if name.upper() == "REPLICATE_API_TOKEN":
                    return str(value)
        except Exception:  # another package's internals; the environment is next
            _logger.debug("no token in the Cog scope", exc_info=True)
    return os.environ.get("REPLICATE_API_TOKEN")
