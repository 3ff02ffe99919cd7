"""The command ``emulator``: serve Replicate's API on this machine until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from ._emulator import Emulator


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> argparse.ArgumentParser:
    """Add the command to a command line; `main` carries it out."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "emulator",
        help="serve Replicate's API on this machine",
        description="Serve Replicate's API on this machine, with small models, until Ctrl-C.",
    )
    parser.add_argument("--port", type=_port, default=0, help="port; 0 (default) takes a free one")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--token", default=None, help="API token to accept (default: a fixed one)")
    parser.add_argument("--account", default="acme", help="user name of the account")
    parser.add_argument(
        "--no-rate-limits", action="store_true", help="let any number of requests pass"
    )
    parser.set_defaults(run=main)
    return parser


def main(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM; return the exit status."""
    from ._emulator import Emulator

    emulator = Emulator(
        host=options.host,
        port=options.port,
        token=options.token,
        account=options.account,
        rate_limits=not options.no_rate_limits,
    )
    try:
        asyncio.run(_serve(emulator))
    except KeyboardInterrupt:  # where signal handlers cannot be set
        pass
    except OSError as error:
        print(
            f"cannot listen on {options.host} port {options.port}: {error.strerror or error}",
            file=sys.stderr,
        )
        return 1
    return 0


def banner(emulator: Emulator) -> str:
    """Return what is printed at the start."""
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


async def _serve(emulator: Emulator) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, stop.set)
    async with emulator:
        print(banner(emulator), flush=True)
        await stop.wait()
    print("Stopped.", flush=True)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError(text)
    return port
