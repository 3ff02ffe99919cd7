"""The command line: `python -m replicate_async`, installed as `replicate-async`.

What a command needs is imported when it runs, so that help and version come at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from ._cli import commands as run_commands
from ._version import __version__
from .testing import _cli as emulator
from .testing import _demo as demo


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; `run` of what it parses carries the command out."""
    made = argparse.ArgumentParser(
        prog="replicate-async",
        description="An asyncio-first client for Replicate's HTTP API, with a local emulator.",
    )
    made.add_argument("--version", action="version", version=f"replicate-async {__version__}")
    commands = made.add_subparsers(title="commands", metavar="COMMAND", required=True)
    run_commands.add_parsers(commands)
    demo.add_parser(commands)
    emulator.add_parser(commands)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command and return the exit status.

    Args:
        arguments: Of the command line; by default those that the process was started with.
    """
    options = parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    return run(options)


if __name__ == "__main__":
    sys.exit(main())
