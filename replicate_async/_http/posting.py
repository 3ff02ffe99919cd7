"""Requests to servers of the user, which are not the API: without the token, and without retries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import aiohttp

from .call import redacted
from .errors import NETWORK_ERRORS, cause_of, translated
from .payloads import JSONPayload
from .session import Pool

_TIMEOUT: Final = 10.0
"""Seconds for the answer."""


async def post_json(pool: Pool, url: str, body: bytes, headers: Mapping[str, str]) -> int:
    """Post JSON to a server of the user, and return the status of its answer. Redirects are not followed.

    Args:
        pool: Connections of the client.
        url: URL of the server.
        body: The JSON.
        headers: Headers of the request.

    Raises:
        TransportError: There was no answer.
    """
    session = await pool.session()
    try:
        async with session.client.post(
            url,
            data=JSONPayload(body, None),
            headers={"Content-Type": "application/json", **headers},
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT),
        ) as response:
            return response.status
    except NETWORK_ERRORS as error:
        raise translated(error, "POST", redacted(url), _TIMEOUT) from cause_of(error)
