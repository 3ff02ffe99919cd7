"""The command `emulator`: serve Replicate's API on this machine until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress

import anyio

from replicate_async.testing import Emulator

from .model_files import ModelFileError, load_models
from .terminal import is_terminal, say, visible

WRONG = 2


def execute(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM, and return the exit code."""
    try:
        emulator = Emulator(
            host=options.host,
            port=options.port,
            token=options.token,
            account=options.account,
            rate_limits=not options.no_rate_limits,
            sync_answers=options.sync_answers,
            local_webhooks=options.local_webhooks,
            tls=options.tls,
        )
        emulator.webhook_hosts.update(options.webhook_host)
        for path in options.models:
            load_models(emulator, path)
    except (ModuleNotFoundError, ModelFileError) as error:
        say(f"error: {error}")
        return WRONG
    _show_deliveries()
    try:
        anyio.run(_serve, emulator)
    except KeyboardInterrupt:  # where signal handlers cannot be set
        pass
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        say(f"cannot listen on {options.host} port {options.port}: {reason}")
        return 1
    return 0


def _show_deliveries() -> None:
    """Show what the emulator logs, such as deliveries of webhooks, on standard error."""
    logger = logging.getLogger("replicate_async.testing")
    logger.setLevel(logging.INFO)
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)


class _Formatter(logging.Formatter):
    """Shows the control characters in what clients have sent as escapes."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return visible(text) if is_terminal(sys.stderr) else text


def _print(text: str) -> None:
    """Write to standard output; whoever does not read it may still use the emulator."""
    with suppress(OSError, ValueError):
        print(text, flush=True)


async def _serve(emulator: Emulator) -> None:
    loop = asyncio.get_running_loop()
    stop = anyio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not `anyio.open_signal_receiver`, which raises where there are no signal handlers (Windows).
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    async with emulator:
        _print("\n".join(_banner(emulator)))
        await stop.wait()
    _print("Stopped.")


def _banner(emulator: Emulator) -> Iterator[str]:
    yield f"Emulator of Replicate's API: {emulator.url}"
    yield f"Token: {emulator.token}"
    yield ""
    yield "Paste this into another shell:"
    for name, value in emulator.env.items():
        yield f"export {name}={value}"
    yield ""
    yield "Models:"
    for name, text in emulator.models():
        yield f"  {name:<24} {text}".rstrip()
    yield ""
    yield "Webhooks:"
    for host, origin in emulator.webhook_hosts.items():
        yield f"  {host:<24} are sent to {origin}"
    if emulator.local_webhooks:
        yield "  localhost, 127.0.0.1     are sent, also with http:"
    yield "  other hosts              are recorded, not sent; see --webhook-host and --local-webhooks"
    yield ""
    yield "Stop with Ctrl-C."
