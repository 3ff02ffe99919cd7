"""Error answers: one exception that carries status and body, and the known bodies.

They rest on :api:`errors`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._validation import Violation

PROBLEM_JSON = "application/problem+json"


class Problem(Exception):
    """An error answer, raised anywhere below a handler.

    Args:
        status: HTTP status.
        body: The JSON body.
        headers: Further headers.
    """

    def __init__(
        self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body
        self.headers: Mapping[str, str] = headers or {}


def unauthenticated(*, token_sent: bool) -> Problem:
    """Return the 401 for a wrong or a missing token."""
    what = "a valid authentication token" if token_sent else "an authentication token"
    return Problem(
        401,
        {"title": "Unauthenticated", "detail": f"You did not pass {what}", "status": 401},
    )


def forbidden() -> Problem:
    """Return the 403."""
    return Problem(
        403, {"detail": "You do not have permission to perform this action.", "status": 403}
    )


def foreign_host(host: str) -> Problem:
    """Return the 403 for a request that names another server."""
    return Problem(
        403,
        {
            "title": "Foreign host",
            "detail": f"This emulator is not {host!r}. Use a name of this machine, or the one that it listens on.",
            "status": 403,
        },
    )


def not_found_service() -> Problem:
    """Return the 404 of the prediction service."""
    return Problem(404, {"detail": "The requested resource could not be found.", "status": 404})


def not_found_django() -> Problem:
    """Return the 404 of the web application."""
    return Problem(404, {"detail": "Not found."})


def not_found_file() -> Problem:
    """Return the 404 of the file endpoints."""
    return Problem(404, {"detail": "File not found"})


def not_allowed(method: str, allow: str) -> Problem:
    """Return the 405."""
    return Problem(405, {"detail": f'Method "{method}" not allowed.'}, {"allow": allow})


def validation_failed(errors: Sequence[tuple[str, str]], *, status: int = 400) -> Problem:
    """Return the 400 or 409 of the web application.

    Args:
        errors: Pairs of a field's name and what is wrong with it.
        status: 400 or 409.
    """
    lines = "\n".join(f"- {field}: {detail}" for field, detail in errors)
    return Problem(
        status,
        {
            "status": status,
            "title": "Validation failed",
            "detail": f"The following errors occurred:\n{lines}",
            "errors": [{"pointer": f"/{field}", "detail": detail} for field, detail in errors],
        },
    )


def refused(detail: str, *, status: int = 400) -> Problem:
    """Return an error that consists of a text."""
    return Problem(status, {"detail": detail, "status": status})


def invalid_input(violations: Sequence[Violation]) -> Problem:
    """Return the 422 of the prediction service (:api:`input-validation`)."""
    lines = (
        f"- {v.field}: {v.description}\n" if v.field else f"- {v.description}\n" for v in violations
    )
    return Problem(
        422,
        {
            "detail": "".join(lines),
            "status": 422,
            "title": "Input validation failed",
            "invalid_fields": [
                {"type": v.type, "field": v.field, "description": v.description} for v in violations
            ],
        },
    )


def invalid_version() -> Problem:
    """Return the 422 for a version that does not exist or must not be used."""
    return Problem(
        422,
        {
            "title": "Invalid version or not permitted",
            "detail": "The specified version does not exist (or perhaps you don't have permission"
            " to use it?)",
            "status": 422,
        },
    )


def no_credit(*, billing: bool) -> Problem:
    """Return the 402.

    Args:
        billing: Whether billing has been set up; then credit is what is missing.
    """
    page = "https://replicate.com/account/billing#billing"
    if billing:
        title, detail = (
            "Insufficient credit",
            (
                f"You have insufficient credit to run this model. Go to {page} to purchase credit. Once"
                " you purchase credit, please wait a few minutes before trying again."
            ),
        )
    else:
        title, detail = (
            "Billing required",
            (
                f"You need to set up billing to run this model. Go to {page} to set it up. If you have"
                " recently set up billing, please wait a few minutes before trying again."
            ),
        )
    return Problem(402, {"title": title, "detail": detail, "status": 402})


def throttled(detail: str, retry_after: int) -> Problem:
    """Return the 429."""
    return Problem(
        429,
        {"detail": detail, "status": 429, "retry_after": retry_after},
        {"retry-after": str(retry_after)},
    )
