"""The commands that run models: `run`, `stream`, `map` and `predictions`.

Results go to standard output, all else to standard error. Exit codes: 0, all went well; 1, something failed; 2, the
command or its arguments are wrong; 130, interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from .. import exceptions
from .._files.disk import ready_directory
from .._files.output import FileOutput, shown
from .._jobs import running
from .._jobs.job import failure_of
from .._jobs.request import CreateOptions, prepare
from .._verbs.map import Outcome, Outcomes
from .._verbs.map_outputs import planned
from .._verbs.use import ModelFunction
from ..client import Client
from ..resources.predictions import Prediction
from ..testing import Emulator
from .inputs import Lines, _type, _value
from .report import Report

FAILED: Final = 1


WRONG: Final = 2


INTERRUPTED: Final = 130


def add_parsers(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands to a command line; `run` of what it parses carries them out."""
    run: argparse.ArgumentParser = commands.add_parser(
        "run",
        help="run a model and print its output",
        description="Run a model and print its output. Ctrl-C cancels it.",
        epilog=_INPUTS_HELP,
    )
    _add_model(run)
    _add_inputs(run)
    run.add_argument("-o", "--output", type=Path, metavar="DIR", help="save the output there")
    run.add_argument("--timeout", type=float, metavar="SECONDS", help="cancel it after so long")
    _add_common(run, _run)

    stream: argparse.ArgumentParser = commands.add_parser(
        "stream",
        help="run a model and print its output as it is made",
        description="Run a model and print its output as it is made. Ctrl-C cancels it.",
        epilog=_INPUTS_HELP,
    )
    _add_model(stream)
    _add_inputs(stream)
    stream.add_argument("--timeout", type=float, metavar="SECONDS", help="cancel it after so long")
    _add_common(stream, _stream)

    fan: argparse.ArgumentParser = commands.add_parser(
        "map",
        help="run a model on many inputs",
        description="Run a model on each line of a file. With a journal, an interrupted run can be started"
        " again, and pays for nothing twice. Ctrl-C stops creating and waits; twice leaves.",
        epilog="In the file, a string that begins with @ is the path of a file; @@ stands for a real @.",
    )
    _add_model(fan)
    fan.add_argument("inputs", metavar="FILE", help="JSON lines or CSV; - is standard input")
    fan.add_argument(
        "-i",
        "--input",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an input of all lines that do not have it; @ before a path is a file",
    )
    fan.add_argument(
        "--format", choices=("jsonl", "csv"), help="of FILE; by default as its name says"
    )
    fan.add_argument("-o", "--output", type=Path, metavar="DIR", help="save outputs there")
    fan.add_argument("--journal", type=Path, metavar="PATH", help="remember what has been paid for")
    fan.add_argument(
        "--concurrency", type=int, default=None, metavar="N", help="predictions in flight (64)"
    )
    fan.add_argument("--ordered", action="store_true", help="print in the order of the lines")
    fan.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="cancel a prediction after so long"
    )
    fan.add_argument(
        "--retry-failed",
        type=int,
        default=0,
        metavar="N",
        help="create, and pay for, up to N further predictions after failures that may pass",
    )
    fan.add_argument(
        "--strict", action="store_true", help="check all lines before anything is created"
    )
    _add_common(fan, _map)

    predictions: argparse.ArgumentParser = commands.add_parser(
        "predictions",
        help="list, show and cancel predictions",
        description="List, show and cancel predictions.",
    )
    parts = predictions.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = parts.add_parser("list", help="the newest predictions of the account")
    listing.add_argument("--limit", type=int, default=20, metavar="N", help="how many (20)")
    _add_common(listing, _list)
    get = parts.add_parser("get", help="show a prediction")
    get.add_argument("id", help="its id")
    get.add_argument("--wait", action="store_true", help="wait until it has ended")
    _add_common(get, _get)
    cancel = parts.add_parser("cancel", help="stop predictions")
    cancel.add_argument("ids", nargs="+", metavar="id", help="their ids")
    _add_common(cancel, _cancel)


_INPUTS_HELP = (
    "Values are numbers, true, false, null, lists and objects as in JSON, else text, unless the model wants"
    " text. @ before a path is a file; @@ stands for a real @."
)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="owner/name, owner/name:version, or a version's id")


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "given", nargs="*", metavar="NAME=VALUE", help="inputs; NAME=@PATH is a file"
    )
    parser.add_argument(
        "-i", "--input", action="append", default=[], metavar="NAME=VALUE", help="the same"
    )


def _add_common(
    parser: argparse.ArgumentParser, command: Callable[[Client, Any], Coroutine[Any, Any, int]]
) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON, one object on a line")
    parser.add_argument(
        "--emulator", action="store_true", help="on an emulator of the API, for nothing"
    )
    parser.set_defaults(run=lambda options: _carry_out(command, options))


def _carry_out(
    command: Callable[[Client, Any], Coroutine[Any, Any, int]], options: argparse.Namespace
) -> int:

    try:
        with _settings(emulated=options.emulator) as settings:
            return asyncio.run(_with_client(settings, command, options))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output reads no more; nothing shall be flushed into the void at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (
        exceptions.ArgumentError,
        exceptions.ArgumentTypeError,
        exceptions.JournalError,
    ) as error:
        _say(f"error: {error}")
        return WRONG
    except exceptions.ReplicateException as error:
        _say(f"error: {error}")
        return FAILED


@contextmanager
def _settings(*, emulated: bool) -> Iterator[dict[str, str]]:
    """Yield what to make a client with."""
    if not emulated:
        yield {}
        return

    os.environ["no_proxy"] = "*"  # a proxy of the environment cannot reach it
    with Emulator() as emulator:
        yield {"api_token": emulator.token, "base_url": emulator.url}


async def _with_client(
    settings: dict[str, str],
    command: Callable[[Client, Any], Coroutine[Any, Any, int]],
    options: argparse.Namespace,
) -> int:

    async with Client(settings.get("api_token"), base_url=settings.get("base_url")) as client:
        return await command(client, options)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str), flush=True)


async def _given(
    client: Client, model: str, pairs: Iterable[str]
) -> tuple[ModelFunction, dict[str, Any]]:
    """Return the model as a function, and the inputs, as what the model wants."""
    function = client.use(model)
    named: list[tuple[str, str]] = []
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise exceptions.ArgumentError(pair, "an input has the form NAME=VALUE")
        named.append((name, text))
    with suppress(exceptions.ReplicateError):  # the create will tell
        await function.load()
    return function, {name: _value(text, _type(function, name), name) for name, text in named}


async def _run(client: Client, options: argparse.Namespace) -> int:

    function, given = await _given(client, options.model, [*options.given, *options.input])
    if options.output is not None:
        await _ready(options.output)
    context = client._context
    settings = running.with_deadline(CreateOptions(wait=True), options.timeout, "cancel")
    order = await prepare(context, await function._given(given), settings)
    state = running.RunState(context, "cancel")
    try:
        async with asyncio.timeout(options.timeout):
            prediction = await running.create_and_wait(state, function._target, order)
    except TimeoutError:
        if state.prediction is None:
            raise
        canceled = state.prediction.status in ("canceled", "aborted")
        raise exceptions.RunTimeout(state.prediction, options.timeout, canceled=canceled) from None
    error = failure_of(prediction)
    output = None if error is not None else function._convert(prediction._raw.get("output"))
    saved: list[Path] = []
    if options.output is not None and error is None:
        files, texts = planned(output, prediction._raw.get("output"), context, "")
        for name, file in files.items():
            saved.append(await file.save(_unused(options.output / name)))
        for name, content in texts.items():
            saved.append(_unused(options.output / name))
            saved[-1].write_bytes(content)
    if options.json:
        _print_json({**prediction.to_dict(), "saved": [str(path) for path in saved]})
    elif error is None:
        for path in saved:
            print(path)
        if not saved:
            print(_shown(output))
    if error is not None:
        _say(f"error: {error}")
        return FAILED
    return 0


async def _ready(directory: Path) -> None:

    await ready_directory(directory)


def _unused(path: Path) -> Path:
    found, number = path, 2
    while found.exists():
        found, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    return found


def _shown(output: object) -> str:
    """Return an output for people: text as it is, files as their URLs, one on a line."""
    if isinstance(output, (str, FileOutput)):
        return shown(str(output)) if isinstance(output, FileOutput) else output
    if isinstance(output, list) and output and all(isinstance(item, FileOutput) for item in output):
        return "\n".join(shown(str(item)) for item in output)
    return json.dumps(output, ensure_ascii=False, default=str)


async def _stream(client: Client, options: argparse.Namespace) -> int:
    function, given = await _given(client, options.model, [*options.given, *options.input])
    inputs = await function._given(given)
    last = ""
    async with client.stream(options.model, inputs, timeout=options.timeout) as events:
        async for event in events:
            if options.json:
                _print_json({"event": event.event, "data": event.data, "id": event.id})
            elif event.event == "output":
                last = str(event)
                is_file = last.startswith(("https://", "http://", "data:"))
                print(last, end="\n" if is_file else "", flush=True)
    if last and not last.endswith("\n") and not options.json:
        print(flush=True)
    return 0


async def _list(client: Client, options: argparse.Namespace) -> int:
    count = 0
    if options.limit > 0:
        async for prediction in client.predictions.list():
            _print_prediction(prediction, options, brief=True)
            count += 1
            if count >= options.limit:
                break
    return 0


async def _get(client: Client, options: argparse.Namespace) -> int:
    prediction = await client.predictions.get(options.id)
    if options.wait:
        await prediction.wait()
    _print_prediction(prediction, options)
    return 0


async def _cancel(client: Client, options: argparse.Namespace) -> int:

    failed = 0
    for id in options.ids:  # noqa: A001  (as the API calls it)
        try:
            _print_prediction(await client.predictions.cancel(id), options, brief=True)
        except exceptions.ReplicateError as error:
            _say(f"error: {error}")
            failed = FAILED
    return failed


def _print_prediction(
    prediction: Prediction, options: argparse.Namespace, *, brief: bool = False
) -> None:
    if options.json:
        _print_json(prediction.to_dict())
        return
    created = prediction.created_at
    when = "-" if created is None else created.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    print(
        f"{prediction.id}  {prediction.status:<10}  {when}  {prediction.model or '-'}", flush=True
    )
    if brief:
        return
    for name in ("version", "deployment", "error"):
        if value := getattr(prediction, name):
            print(f"{name}: {value}")
    for name, value in (("input", prediction.input), ("metrics", prediction.metrics)):
        print(f"{name}: {json.dumps(value, ensure_ascii=False)}")
    if prediction.output is not None:
        print(_shown(prediction.output))
    sys.stdout.flush()


async def _map(client: Client, options: argparse.Namespace) -> int:
    function, common = await _given(client, options.model, options.input)
    lines = Lines(options.inputs, options.format, function, common)
    inputs: Iterable[Any]
    if options.strict:
        found = await asyncio.to_thread(list, lines.read())
        problems = [
            problem
            for value in found
            if (problem := _problem_of(value, function._schema)) is not None
        ]
        for problem in problems[:20]:
            _say(f"error: {problem}")
        if problems:
            _say(f"{len(problems)} of {len(found)} lines are wrong; nothing was created")
            return WRONG
        inputs = [value.value for value in found]
        lines.numbers.update((index, value.number) for index, value in enumerate(found))
        lines.total = len(found)
    else:
        inputs = lines.unpack(lines.read())
        await asyncio.to_thread(lines.count)
    outcomes = client.map(
        function,
        inputs,
        concurrency=options.concurrency,
        ordered=options.ordered,
        save_to=options.output,
        journal=options.journal,
        timeout=options.timeout,
        retry_failed=options.retry_failed,
    )
    fan = outcomes._fan
    report = Report(sys.stderr, lambda: lines.total, lambda: fan.in_flight)
    state = time.monotonic()
    with _interrupts(outcomes, report):
        ticker = asyncio.create_task(report.tick())
        try:
            async with outcomes:
                async for outcome in outcomes:
                    number = lines.numbers.pop(outcome.index, outcome.index + 1)
                    report.add(outcome)
                    _print_outcome(outcome, number, options, report)
                    if isinstance(outcome.error, _fatal()) and not fan.stopping:
                        report.say("nothing else would succeed: no more is created")
                        fan.stop()
        finally:
            ticker.cancel()
            with suppress(asyncio.CancelledError):
                await ticker
            report.end()
            _say(report.summary(time.monotonic() - state))
            if fan.stopping and options.journal is not None:
                _say(f"the same command goes on with what is left: {options.journal}")
    if report.interrupted:
        return INTERRUPTED
    return FAILED if report.failed else 0


def _fatal() -> tuple[type[Exception], ...]:
    """Return the errors that every further create would meet, too."""
    return (
        exceptions.AuthenticationError,
        exceptions.PaymentRequiredError,
        exceptions.PermissionDeniedError,
        exceptions.NotFoundError,
        exceptions.MissingToken,
    )


@contextmanager
def _interrupts(outcomes: Outcomes, report: Report) -> Iterator[None]:
    """Let the first Ctrl-C stop the creating, and the second one end it all."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None

    def interrupt() -> None:
        if not report.interrupted:
            report.interrupted = True
            outcomes._fan.stop()
            report.say("no more is created; waiting for what runs (Ctrl-C once more leaves)")
        else:
            task.cancel()

    try:
        loop.add_signal_handler(signal.SIGINT, interrupt)
    except (NotImplementedError, RuntimeError):  # Windows, or not the main thread
        yield
        return
    try:
        yield
    except asyncio.CancelledError:
        if not report.interrupted:
            raise
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _problem_of(value: Any, schema: Any) -> str | None:
    """Return what is wrong with a line, as far as can be told without a request."""
    if isinstance(value.value, Exception):
        return str(value.value)
    problems = [] if schema is None else schema.problems(value.value)
    if problems:
        return f"line {value.number}: {'; '.join(f'{p.name}: {p.text}' for p in problems)}"
    return None


def _print_outcome(
    outcome: Outcome, number: int, options: argparse.Namespace, report: Report
) -> None:
    prediction, error = outcome.prediction, outcome.error
    if options.json:
        report.clear()
        _print_json(
            {
                "index": outcome.index,
                "line": number,
                "id": None if prediction is None else prediction.id,
                "status": None if prediction is None else prediction.status,
                "output": None if prediction is None else prediction._raw.get("output"),
                "error": None if error is None else str(error),
                "saved": [str(path) for path in outcome.saved],
            }
        )
    elif error is None and options.output is None:
        report.clear()
        print(f"{outcome.index:06d} {_shown(outcome.output)}", flush=True)
    if error is not None:
        text = str(error)
        report.say(text if text.startswith("line ") else f"line {number}: {text}")
