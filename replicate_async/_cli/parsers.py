"""The commands and their arguments.

The modules that execute them are imported when they are needed, so that `--help` and `--version` respond at once.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

_HOST = re.compile(r"[^\s/?#@=]+")
_LOCAL_ORIGIN = re.compile(
    r"https?://((?:[\w-]+\.)*localhost|127(?:\.\d+){3}|\[::1\])(:\d+)?(/[^\s?#]*)?",
    re.IGNORECASE | re.ASCII,
)

_INPUTS = (
    "Values that are JSON (numbers, true, false, null, lists and objects) are parsed, unless the model"
    " expects text; all others are text. A value that begins with @ is the path of a file, whose content is"
    " passed if the model expects text. To pass text that begins with @, write @@."
)


def add_parsers(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands to a command line; `run` of the parsed options executes them."""
    _add_run(commands)
    _add_stream(commands)
    _add_map(commands)
    _add_predictions(commands)
    _add_webhooks(commands)
    _add_demo(commands)
    _add_emulator(commands)


def _add_run(commands: argparse._SubParsersAction[Any]) -> None:
    run: argparse.ArgumentParser = commands.add_parser(
        "run",
        help="run a model and print its output",
        description="Run a model and print its output. Ctrl-C, SIGTERM and SIGHUP cancel the prediction.",
        epilog=_INPUTS,
    )
    _add_model(run)
    _add_inputs(run)
    run.add_argument("-o", "--output", type=Path, metavar="DIR", help="save the output in DIR")
    _add_output_hosts(run)
    _add_timeout(run)
    _add_files(run)
    _add_common(run, "run")


def _add_stream(commands: argparse._SubParsersAction[Any]) -> None:
    stream: argparse.ArgumentParser = commands.add_parser(
        "stream",
        help="run a model and print its output while it is generated",
        description="Run a model and print its output while it is generated. Ctrl-C, SIGTERM and SIGHUP cancel"
        " the prediction.",
        epilog=_INPUTS,
    )
    _add_model(stream)
    _add_inputs(stream)
    _add_timeout(stream)
    _add_files(stream)
    _add_common(stream, "stream")


def _add_map(commands: argparse._SubParsersAction[Any]) -> None:
    fan_out: argparse.ArgumentParser = commands.add_parser(
        "map",
        help="run a model on many inputs",
        description="Run a model on each line of a file. With --journal, an interrupted command can be"
        " run again without paying twice. The first Ctrl-C stops creating predictions and waits for those"
        " that are running. The second one, SIGTERM and SIGHUP exit: they cancel what is running or, with"
        " --journal, leave it to the next run.",
        epilog="In FILE, a string that begins with @ is the path of a file, whose content is passed if the model"
        " expects text; @@ stands for @ itself. CSV has the names of the inputs in its first line; cells are"
        " separated by commas, semicolons or tabs, and an input whose cell is empty is left out.",
    )
    _add_model(fan_out)
    fan_out.add_argument("inputs", metavar="FILE", help="JSON lines or CSV; - is standard input")
    fan_out.add_argument(
        "-i",
        "--input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an input for all lines that do not set it; @PATH is a file",
    )
    fan_out.add_argument(
        "--format", choices=("jsonl", "csv"), help="format of FILE (default: by its name)"
    )
    fan_out.add_argument("-o", "--output", type=Path, metavar="DIR", help="save the outputs in DIR")
    _add_output_hosts(fan_out)
    fan_out.add_argument(
        "--journal", type=Path, metavar="PATH", help="file that records what has been paid for"
    )
    fan_out.add_argument(
        "--concurrency", type=int, metavar="N", help="maximum number of predictions in flight (64)"
    )
    fan_out.add_argument(
        "--ordered", action="store_true", help="print the results in the order of the lines"
    )
    _add_timeout(fan_out)
    fan_out.add_argument(
        "--retry-failed",
        type=int,
        default=0,
        metavar="N",
        help="after transient failures, create and pay for up to N further predictions",
    )
    fan_out.add_argument(
        "--redo",
        type=_reasons,
        default=frozenset(),
        metavar="WHICH",
        help="with --journal, run (and pay for) inputs again that have no output from earlier runs, by the reason:"
        f" {', '.join(_REASONS)}; several are separated by commas",
    )
    fan_out.add_argument(
        "--strict", action="store_true", help="check all lines before creating anything"
    )
    _add_files(fan_out)
    _add_common(fan_out, "map")


def _add_predictions(commands: argparse._SubParsersAction[Any]) -> None:
    predictions: argparse.ArgumentParser = commands.add_parser(
        "predictions",
        help="list, show and cancel predictions",
        description="List, show and cancel predictions.",
    )
    actions = predictions.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = actions.add_parser("list", help="list the newest predictions of the account")
    listing.add_argument(
        "--limit", type=int, default=20, metavar="N", help="maximum number of predictions (20)"
    )
    _add_common(listing, "predictions list")
    get = actions.add_parser("get", help="show a prediction")
    get.add_argument("id", help="ID of the prediction")
    get.add_argument("--wait", action="store_true", help="wait until it has ended")
    _add_common(get, "predictions get")
    cancel = actions.add_parser("cancel", help="cancel predictions")
    cancel.add_argument("ids", nargs="+", metavar="id", help="IDs of the predictions")
    _add_common(cancel, "predictions cancel")


def _add_webhooks(commands: argparse._SubParsersAction[Any]) -> None:
    webhooks: argparse.ArgumentParser = commands.add_parser(
        "webhooks",
        help="receive webhooks on this machine",
        description="Receive webhooks on this machine.",
    )
    actions = webhooks.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listen = actions.add_parser(
        "listen",
        help="deliver the account's webhooks to a local server, without a tunnel",
        description="Watch the predictions and trainings of the account by polling, and post what the service would"
        " deliver to a server of this machine, signed with the secret of the account, until Ctrl-C.",
    )
    listen.add_argument(
        "--forward",
        required=True,
        metavar="URL",
        help="where to post them, such as http://localhost:8000/replicate",
    )
    listen.add_argument(
        "--all",
        action="store_true",
        help="also deliver for predictions and trainings that have no webhook",
    )
    listen.add_argument(
        "--interval",
        type=float,
        default=2.0,
        metavar="SECONDS",
        help="seconds between two polls (2)",
    )
    _add_common(listen, "webhooks listen")


def _add_demo(commands: argparse._SubParsersAction[Any]) -> None:
    demo: argparse.ArgumentParser = commands.add_parser(
        "demo",
        help="see models run end to end, without a token and without a network",
        description="Start an emulator of Replicate's API and run its models. This takes a few seconds."
        " Nothing leaves this machine, and nothing is billed.",
    )
    demo.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("demo-output"),
        metavar="DIR",
        help="directory for the picture (default: %(default)s)",
    )
    demo.set_defaults(run=_execute_in("demo"))


def _add_emulator(commands: argparse._SubParsersAction[Any]) -> None:
    emulator: argparse.ArgumentParser = commands.add_parser(
        "emulator",
        help="serve Replicate's API on this machine",
        description="Serve Replicate's API on this machine, with small models, until Ctrl-C. Deliveries of"
        " webhooks are reported.",
    )
    emulator.add_argument(
        "--port", type=_port, default=0, help="port; 0 (default) selects a free one"
    )
    emulator.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: %(default)s, which only this machine can reach)",
    )
    emulator.add_argument(
        "--token",
        help="API token to accept (default: a fixed one, or a random one if other machines can reach --host)",
    )
    emulator.add_argument("--account", default="acme", help="user name of the account")
    emulator.add_argument("--no-rate-limits", action="store_true", help="disable the rate limits")
    emulator.add_argument(
        "--models",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="Python file whose public functions become the models ACCOUNT/function, or whose"
        " setup_emulator(emulator) adds models; may be repeated",
    )
    emulator.add_argument(
        "--tls",
        action="store_true",
        help="serve HTTPS, with certificates that the printed variables make clients trust (needs the extra"
        " tls)",
    )
    emulator.add_argument(
        "--sync-answers",
        choices=("final", "recorded"),
        help="response to creates in sync mode: a prediction that has ended, with URLs of files, or one that is still"
        " processing, with data URIs (default: final with --tls, else recorded)",
    )
    emulator.add_argument(
        "--local-webhooks",
        action="store_true",
        help="accept webhooks with http: URLs of this machine, and send deliveries to localhost and 127.0.0.1",
    )
    emulator.add_argument(
        "--webhook-host",
        type=_webhook_host,
        action="append",
        default=[],
        metavar="HOST=URL",
        help="send deliveries for a host to a server on this machine, as in"
        " example.com=http://127.0.0.1:8000; may be repeated",
    )
    emulator.set_defaults(run=_execute_in("emulator"))


_REASONS = ("failed", "canceled", "timeout", "expired", "lost")


def _reasons(text: str) -> frozenset[str]:
    reasons = frozenset(part.strip() for part in text.split(","))
    if unknown := reasons.difference(_REASONS):
        raise argparse.ArgumentTypeError(
            f"{', '.join(sorted(unknown))!r} is none of {', '.join(_REASONS)}"
        )
    return reasons


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError(text)
    return port


def _webhook_host(text: str) -> tuple[str, str]:
    host, equals, origin = text.partition("=")
    if not equals or not _HOST.fullmatch(host):
        raise argparse.ArgumentTypeError(f"expected HOST=URL, got {text!r}")
    if not _LOCAL_ORIGIN.fullmatch(origin):
        raise argparse.ArgumentTypeError(
            f"expected the URL of a server on this machine, such as http://127.0.0.1:8000, got {origin!r}"
        )
    return host.lower(), origin


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number of seconds, got {text!r}") from None
    if not (seconds > 0 and math.isfinite(seconds)):
        raise argparse.ArgumentTypeError(f"expected more than 0 seconds, got {text}")
    return seconds


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        help="owner/name, owner/name:version, the ID of a version, or deployments/owner/name",
    )


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "given", nargs="*", metavar="NAME=VALUE", help="an input; NAME=@PATH is a file"
    )
    parser.add_argument(
        "-i",
        "--input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an input, as NAME=VALUE above",
    )


def _add_timeout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS", help="cancel a prediction after this time"
    )


def _add_output_hosts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output-host",
        action="append",
        metavar="HOST",
        help="fetch output files from this host only, or from *.DOMAIN; may be repeated (default: any host)",
    )


def _add_files(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--no-files",
        action="store_true",
        help="read no files: @ is an ordinary character in inputs",
    )
    group.add_argument(
        "--files-from",
        type=Path,
        metavar="DIR",
        help="read @PATH only from files in DIR, after links are resolved",
    )


def _add_common(parser: argparse.ArgumentParser, command: str) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, one object per line")
    parser.add_argument(
        "--emulator", action="store_true", help="use an emulator of the API, free of charge"
    )
    parser.add_argument(
        "--rate-limit",
        metavar="N/SECONDS",
        help="create at most N predictions in so many seconds (default: REPLICATE_RATE_LIMIT, or 600/60)",
    )
    parser.set_defaults(command=command, run=_execute_in("commands"))


def _execute_in(module: str) -> Callable[[argparse.Namespace], int]:
    """Return a function that executes a command in a module of this folder."""

    def run(options: argparse.Namespace) -> int:
        code: int = import_module(f".{module}", __package__).execute(options)
        return code

    return run
