"""Requests and answers of the API's origin: routes, bodies, pages, JSON.

Which operation answers which path is the table `ROUTES`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar
from urllib.parse import unquote, urlencode

import attrs
from aiohttp import web

from ._ledger import Request
from ._problems import invalid_input, refused, validation_failed
from ._store import Account, Cursor, page
from ._validation import Violation
from ._views import check_depth, encode

T = TypeVar("T")

JSON_TYPE = "application/json"
SERVICE_JSON_TYPE = "application/json; charset=utf-8"

ROUTES: tuple[tuple[str, str, str], ...] = (
    ("GET", "/v1/account", "account.get"),
    ("GET", "/v1/collections", "collections.list"),
    ("GET", "/v1/collections/*", "collections.get"),
    ("GET", "/v1/deployments", "deployments.list"),
    ("POST", "/v1/deployments", "deployments.create"),
    ("GET", "/v1/deployments/*/*", "deployments.get"),
    ("PATCH", "/v1/deployments/*/*", "deployments.update"),
    ("DELETE", "/v1/deployments/*/*", "deployments.delete"),
    ("POST", "/v1/deployments/*/*/predictions", "deployments.predictions.create"),
    ("GET", "/v1/files", "files.list"),
    ("POST", "/v1/files", "files.create"),
    ("GET", "/v1/files/*", "files.get"),
    ("DELETE", "/v1/files/*", "files.delete"),
    ("GET", "/v1/files/*/download", "files.download"),
    ("GET", "/v1/hardware", "hardware.list"),
    ("GET", "/v1/models", "models.list"),
    ("QUERY", "/v1/models", "models.search"),
    ("POST", "/v1/models", "models.create"),
    ("GET", "/v1/models/*/*", "models.get"),
    ("PATCH", "/v1/models/*/*", "models.update"),
    ("DELETE", "/v1/models/*/*", "models.delete"),
    ("GET", "/v1/models/*/*/examples", "models.examples.list"),
    ("POST", "/v1/models/*/*/predictions", "models.predictions.create"),
    ("GET", "/v1/models/*/*/readme", "models.readme.get"),
    ("GET", "/v1/models/*/*/versions", "models.versions.list"),
    ("GET", "/v1/models/*/*/versions/*", "models.versions.get"),
    ("DELETE", "/v1/models/*/*/versions/*", "models.versions.delete"),
    ("POST", "/v1/models/*/*/versions/*/trainings", "trainings.create"),
    ("GET", "/v1/predictions", "predictions.list"),
    ("POST", "/v1/predictions", "predictions.create"),
    ("GET", "/v1/predictions/*", "predictions.get"),
    ("POST", "/v1/predictions/*/cancel", "predictions.cancel"),
    ("GET", "/v1/search", "search"),
    ("GET", "/v1/trainings", "trainings.list"),
    ("GET", "/v1/trainings/*", "trainings.get"),
    ("POST", "/v1/trainings/*/cancel", "trainings.cancel"),
    ("GET", "/v1/webhooks/default/secret", "webhooks.default.secret.get"),
)

PREDICTION_CREATES = frozenset(
    {"predictions.create", "models.predictions.create", "deployments.predictions.create"}
)


class _Node:
    __slots__ = ("any", "literals", "operations")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.any: _Node | None = None
        self.operations: dict[str, str] = {}


def _tree() -> _Node:
    root = _Node()
    for method, path, operation in ROUTES:
        node = root
        for segment in path.split("/")[1:]:
            if segment == "*":
                node.any = node.any or _Node()
                node = node.any
            else:
                node = node.literals.setdefault(segment, _Node())
        node.operations[method] = operation
    return root


_ROOT = _tree()


@attrs.frozen
class Match:
    """Operation and parameters of a request.

    Attributes:
        operation: Name of the operation. Empty if the path is known, but not with this method.
        parameters: What stands in the path, percent-decoded.
        allow: Methods of this path; empty if the path is unknown.
    """

    operation: str = ""
    parameters: tuple[str, ...] = ()
    allow: str = ""


_NOWHERE = Match()


def match(method: str, raw_path: str) -> Match:
    """Find the operation for a method and an encoded path."""
    node = _ROOT
    parameters: list[str] = []
    for segment in raw_path.split("/")[1:]:
        literal = node.literals.get(segment)
        if literal is not None:
            node = literal
        elif node.any is not None and segment:
            parameters.append(unquote(segment) if "%" in segment else segment)
            node = node.any
        else:
            return _NOWHERE
    if not node.operations:
        return _NOWHERE
    operation = node.operations.get("GET" if method == "HEAD" else method, "")
    methods = [*node.operations, *(("HEAD",) if "GET" in node.operations else ()), "OPTIONS"]
    return Match(operation, tuple(parameters), ", ".join(methods))


@attrs.define(eq=False)
class Call:
    """One authenticated request to one operation.

    Attributes:
        account: Whose token was sent; the default account for operations that need none.
        parameters: What stands in the path.
    """

    request: web.BaseRequest
    record: Request
    account: Account
    parameters: tuple[str, ...]

    @property
    def query(self) -> dict[str, str]:
        """The query parameters."""
        return dict(self.request.rel_url.query)

    async def body(self) -> bytes:
        """Return the body, and note it in the ledger."""
        raw = await self.request.read()
        self.record.body = raw
        self.record.body_size = len(raw)
        return raw

    async def json(self) -> Any:
        """Return the decoded JSON body.

        Raises:
            Problem: It is not JSON.
        """
        raw = await self.body()
        try:
            return decode(raw)
        except ValueError:
            raise refused("The request body is not valid JSON.") from None

    async def object(self) -> dict[str, Any]:
        """Return the decoded JSON body of an operation of the web application.

        Raises:
            Problem: It is not a JSON object.
        """
        body = await self.json()
        if not isinstance(body, dict):
            raise refused(
                "Invalid data. Expected a dictionary, but got " + type(body).__name__ + "."
            )
        return body


def decode(raw: bytes | str) -> Any:
    """Return a JSON value that can be stored and shown.

    Raises:
        ValueError: It is not JSON, or it is nested too deep.
    """
    try:
        value = json.loads(raw, parse_constant=_number, parse_float=_number)
    except RecursionError:
        raise ValueError("nested too deep") from None
    check_depth(value)
    return value


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no JSON number")
    return number


def answer(value: object, status: int = 200, *, service: bool = False) -> web.Response:
    """Return a JSON answer.

    Args:
        value: The JSON value, or its encoded bytes.
        status: HTTP status.
        service: Whether the prediction service answers, rather than the web application.
    """
    raw = value if isinstance(value, bytes) else encode(value)
    return web.Response(
        body=raw,
        status=status,
        headers={"Content-Type": SERVICE_JSON_TYPE if service else JSON_TYPE},
    )


def page_answer(
    call: Call,
    url: str,
    items: Sequence[T],
    key: Callable[[T], int],
    view: Callable[[T], Any],
    *,
    size: int,
    descending: bool = True,
    after: int | None = None,
    before: int | None = None,
) -> web.Response:
    """Return one page of a list, with links that keep the query (:api:`pagination`).

    Args:
        call: The request; its ``cursor`` says which page.
        url: Base URL of the emulator.
        items: All items, ascending by *key*.
        key: Unique position of an item.
        view: Makes an item's JSON, decoded or encoded.
        size: Items on a page.
        descending: Whether the greatest position comes first.
        after: Leave out items below this position.
        before: Leave out items from this position on.
    """
    query = call.query
    text = query.pop("cursor", None)
    try:
        cursor = None if text is None else Cursor.decode(text)
    except ValueError:
        raise refused("Invalid cursor", status=404) from None
    found, onward, back = page(
        items,
        key,
        cursor=cursor,
        size=size,
        descending=descending,
        after=after,
        before=before,
    )

    def link(cursor: Cursor | None) -> bytes:
        if cursor is None:
            return b"null"
        path = call.request.rel_url.raw_path
        return encode(f"{url}{path}?{urlencode({**query, 'cursor': cursor.encode()})}")

    views = (view(item) for item in found)
    results = b",".join(v if isinstance(v, bytes) else encode(v) for v in views)
    return answer(
        b'{"next":'
        + link(onward)
        + b',"previous":'
        + link(back)
        + b',"results":['
        + results
        + b"]}"
    )


# --- checking bodies -----------------------------------------------------------------------------

_GO_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "boolean"),
    (int, "integer"),
    (float, "number"),
    (str, "string"),
    (dict, "object"),
    (list, "array"),
)


def go_type(value: object) -> str:
    """Return the JSON type of a value in the words of the service's validator."""
    return next((name for kind, name in _GO_TYPES if isinstance(value, kind)), "null")


def wrong_type(field: str, expected: str, given: object) -> Violation:
    """Return the violation for a value of another type."""
    return Violation(
        "invalid_type", field, f"Invalid type. Expected: {expected}, given: {go_type(given)}"
    )


def reject(violations: Sequence[Violation]) -> None:
    """Answer 422 if there are violations.

    Raises:
        Problem: There are.
    """
    if violations:
        raise invalid_input(violations)


class Fields:
    """Checks the fields of a body as the web application does, and collects what is wrong."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._body = body
        self.errors: list[tuple[str, str]] = []

    def text(
        self, name: str, *, required: bool = False, choices: Sequence[str] = (), url: bool = False
    ) -> str | None:
        """Return a string; None if it is missing or null."""
        value = self._body.get(name)
        if value is None:
            if required:
                self.errors.append((name, "This field is required."))
            return None
        if not isinstance(value, str):
            self.errors.append((name, "Not a valid string."))
            return None
        if required and not value:
            self.errors.append((name, "This field may not be blank."))
        if choices and value not in choices:
            self.errors.append((name, f'"{value}" is not a valid choice.'))
        if url and value and not value.startswith(("http://", "https://")):
            self.errors.append((name, "Enter a valid URL."))
        return value

    def hardware(self, allowed: Sequence[str], *, required: bool) -> str | None:
        """Return the SKU in ``hardware``."""
        sku = self.text("hardware", required=required)
        if sku and sku not in allowed:
            self.errors.append(
                (
                    "hardware",
                    f"{sku} is not a valid hardware SKU. Your options are: {', '.join(allowed)}.",
                )
            )
        return sku

    def number(self, name: str, least: int, most: int, *, required: bool) -> int | None:
        """Return an integer between two bounds."""
        value = self._body.get(name)
        if value is None:
            if required:
                self.errors.append((name, "This field is required."))
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            self.errors.append((name, "A valid integer is required."))
            return None
        if value < least:
            self.errors.append((name, f"Ensure this value is greater than or equal to {least}."))
        if value > most:
            self.errors.append((name, f"Ensure this value is less than or equal to {most}."))
        return value

    def done(self) -> None:
        """Answer 400 if something was wrong.

        Raises:
            Problem: Something was.
        """
        if self.errors:
            self.fail()

    def fail(self, *, status: int = 400) -> NoReturn:
        """Answer with what was wrong.

        Raises:
            Problem: Always.
        """
        raise validation_failed(self.errors, status=status)
