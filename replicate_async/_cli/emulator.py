"""The command `emulator`: serve Replicate's API on this machine until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from contextlib import suppress

import anyio

from replicate_async.testing import Emulator


def execute(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM, and return the exit code."""
    emulator = Emulator(
        host=options.host,
        port=options.port,
        token=options.token,
        account=options.account,
        rate_limits=not options.no_rate_limits,
    )
    try:
        anyio.run(_serve, emulator)
    except KeyboardInterrupt:  # where signal handlers cannot be set
        pass
    except OSError as error:
        print(
            f"cannot listen on {options.host} port {options.port}: {error.strerror or error}",
            file=sys.stderr,
        )
        return 1
    return 0


async def _serve(emulator: Emulator) -> None:
    loop = asyncio.get_running_loop()
    stop = anyio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not `anyio.open_signal_receiver`, which raises where there are no signal handlers (Windows).
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    async with emulator:
        print(_banner(emulator), flush=True)
        await stop.wait()
    print("Stopped.", flush=True)


def _banner(emulator: Emulator) -> str:
    lines = [
        f"Emulator of Replicate's API: {emulator.url}",
        f"Token: {emulator.token}",
        "",
        "Paste this into another shell:",
        *(f"export {name}={value}" for name, value in emulator.env.items()),
        "",
        "Models:",
        *(f"  {name:<24} {text}" for name, text in emulator.models()),
        "",
        "Stop with Ctrl-C.",
    ]
    return "\n".join(lines)
