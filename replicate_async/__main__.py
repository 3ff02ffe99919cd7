"""The command line: `replicate-async`, or `python -m replicate_async`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Final

from replicate_async import __version__

from ._cli import terminal
from ._cli.parsers import add_parsers

_FAILED: Final = 1
_INTERRUPTED: Final = 130


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; `run` of the parsed options executes the command."""
    made = argparse.ArgumentParser(
        prog="replicate-async",
        description="An asyncio-first client for Replicate's HTTP API, with a local emulator.",
    )
    made.add_argument("--version", action="version", version=f"replicate-async {__version__}")
    commands = made.add_subparsers(title="commands", metavar="COMMAND", required=True)
    add_parsers(commands)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Execute a command, and return the exit code.

    Args:
        arguments: The arguments of the command line; by default those of the process.
    """
    try:
        options = parser().parse_args(arguments)
        run: Callable[[argparse.Namespace], int] = options.run
        code = run(options)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except Exception as error:  # noqa: BLE001  (no user of a command is helped by a traceback)
        terminal.report(error)
        code = _FAILED
    finally:
        # Also after `--help`, which ends with SystemExit.
        is_written = terminal.flush()
    return code if is_written else code or _FAILED


if __name__ == "__main__":
    sys.exit(main())
