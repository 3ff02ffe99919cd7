"""The responses that the objects of the API were made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Self

import attrs


@attrs.frozen
class Response:
    """The response that an object of the API was made of (:api:`response-headers`)."""

    status: int
    """HTTP status code."""
    headers: Mapping[str, str]
    """Headers, with names in lower case."""

    @property
    def request_id(self) -> str | None:
        """ID of the request, which the support of Replicate asks for; `None` if the response has none."""
        for name in ("x-request-id", "request-id", "cf-ray"):
            if value := self.headers.get(name):
                return value
        return None


class ResponseHolder:
    """Holds the response of an object. Pickles and copies of the object hold none."""

    __slots__ = ("response",)

    def __init__(self, response: Response | None = None) -> None:
        self.response: Response | None = response

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)()


NO_RESPONSE: Final = ResponseHolder()


class JSONObject(dict[str, Any]):
    """A JSON object that `Client.request` returns: a dictionary with its `response`."""

    response: Response | None = None
    """The response that it was made of; `None` for pickles and copies."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)
