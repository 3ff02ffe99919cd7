"""The worker class for gunicorn."""

from __future__ import annotations

from typing import Any

from uvicorn_worker import UvicornWorker  # type: ignore[import-untyped]


class Worker(UvicornWorker):  # type: ignore[misc]
    """A worker that cancels its handlers after a second; gunicorn has no option for that."""

    CONFIG_KWARGS: dict[str, Any] = {  # noqa: RUF012  (declared so by the base class)
        **UvicornWorker.CONFIG_KWARGS,
        "timeout_graceful_shutdown": 1,
    }
