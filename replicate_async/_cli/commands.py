"""The commands `run`, `stream`, `map` and `predictions`.

They print results to standard output, and everything else to standard error. Exit codes: 0, success; 1, something
failed; 2, the command or its arguments are wrong; 130, interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

import anyio
from anyio import to_thread

from replicate_async import (
    Client,
    ModelFunction,
    Outcome,
    Outcomes,
    Prediction,
    exceptions,
    testing,
)

from .inputs import Line, Lines, names_of_texts, parse_value, split_pair
from .outputs import prepare_directory, printed, save_output, to_json
from .report import Report

FAILED: Final = 1
WRONG: Final = 2
INTERRUPTED: Final = 130

_PROBLEMS_SHOWN: Final = 20
"""How many wrong lines `--strict` reports."""

_FATAL: Final = (
    exceptions.AuthenticationError,
    exceptions.PaymentRequiredError,
    exceptions.PermissionDeniedError,
    exceptions.NotFoundError,
    exceptions.MissingToken,
)
"""Errors that every further create would meet, too."""


def execute(options: argparse.Namespace) -> int:
    """Execute the command of parsed options, and return the exit code."""
    code = 0
    try:
        with _client_options(emulated=options.emulator) as settings:
            code = anyio.run(_with_client, options, settings)
    except* KeyboardInterrupt:
        code = INTERRUPTED
    except* BrokenPipeError:
        # Nobody reads standard output any more: let nothing be flushed into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    except* (
        exceptions.ArgumentError,
        exceptions.ArgumentTypeError,
        exceptions.JournalError,
    ) as errors:
        code = _report_errors(errors, WRONG)
    except* exceptions.ReplicateException as errors:
        code = _report_errors(errors, FAILED)
    return code


def _report_errors(errors: ExceptionGroup[Any], code: int) -> int:
    for error in errors.exceptions:
        _say(f"error: {error}")
    return code


@contextmanager
def _client_options(*, emulated: bool) -> Iterator[dict[str, str]]:
    """Yield the options of the client; with an emulator, those that lead to it."""
    if not emulated:
        yield {}
        return
    os.environ["no_proxy"] = "*"  # the proxies of the environment do not lead to this machine
    with testing.Emulator() as emulator:
        yield {"api_token": emulator.token, "base_url": emulator.url}


async def _with_client(options: argparse.Namespace, settings: Mapping[str, str]) -> int:
    async with Client(settings.get("api_token"), base_url=settings.get("base_url")) as client:
        return await _COMMANDS[options.command](client, options)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print_json(value: object) -> None:
    print(to_json(value, compact=True), flush=True)


async def _parse_inputs(function: ModelFunction, pairs: Iterable[str]) -> dict[str, Any]:
    """Return the inputs of a function that are given as `NAME=VALUE`."""
    named = [split_pair(pair) for pair in pairs]
    with suppress(exceptions.ReplicateError):  # the create will raise it, too
        await function.load()
    texts = names_of_texts(function.signature)
    return {name: parse_value(text, name, texts) for name, text in named}


# -- run, stream -------------------------------------------------------------------------------


async def _run(client: Client, options: argparse.Namespace) -> int:
    function = client.use(options.model, timeout=options.timeout)
    inputs = await _parse_inputs(function, [*options.given, *options.input])
    if options.output is not None:
        await to_thread.run_sync(prepare_directory, options.output)
    [outcome] = await client.map(function, [inputs]).collect()
    prediction, error = outcome.prediction, outcome.error
    if prediction is None:
        assert error is not None
        raise error
    saved = []
    if options.output is not None and error is None:
        saved = await save_output(prediction, outcome.output, options.output)
    if options.json:
        _print_json({**prediction.to_dict(), "saved": [str(path) for path in saved]})
    elif error is None:
        print("\n".join(map(str, saved)) if saved else printed(outcome.output))
    if error is not None:
        _say(f"error: {error}")
        return FAILED
    return 0


async def _stream(client: Client, options: argparse.Namespace) -> int:
    function = client.use(options.model)
    inputs = await _parse_inputs(function, [*options.given, *options.input])
    function.check(**inputs)
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


# -- predictions -------------------------------------------------------------------------------


async def _list(client: Client, options: argparse.Namespace) -> int:
    count = 0
    if options.limit > 0:
        async for prediction in client.predictions.list():
            _print_summary(prediction, options)
            count += 1
            if count >= options.limit:
                break
    return 0


async def _get(client: Client, options: argparse.Namespace) -> int:
    prediction = await client.predictions.get(options.id)
    if options.wait:
        await prediction.wait()
    _print_summary(prediction, options)
    if not options.json:
        _print_details(prediction)
    return 0


async def _cancel(client: Client, options: argparse.Namespace) -> int:
    code = 0
    for prediction_id in options.ids:
        try:
            prediction = await client.predictions.cancel(prediction_id)
        except exceptions.ReplicateError as error:
            _say(f"error: {error}")
            code = FAILED
        else:
            _print_summary(prediction, options)
    return code


def _print_summary(prediction: Prediction, options: argparse.Namespace) -> None:
    if options.json:
        _print_json(prediction.to_dict())
        return
    created = prediction.created_at
    when = "-" if created is None else created.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    print(
        f"{prediction.id}  {prediction.status:<10}  {when}  {prediction.model or '-'}", flush=True
    )


def _print_details(prediction: Prediction) -> None:
    for name in ("version", "deployment", "error"):
        if value := getattr(prediction, name):
            print(f"{name}: {value}")
    print(f"input: {to_json(prediction.input)}")
    print(f"metrics: {to_json(prediction.metrics)}")
    if prediction.output is not None:
        print(printed(prediction.output))
    sys.stdout.flush()


# -- map ---------------------------------------------------------------------------------------


async def _map(client: Client, options: argparse.Namespace) -> int:
    function = client.use(options.model)
    common = await _parse_inputs(function, options.input)
    lines = Lines(options.inputs, options.format, names_of_texts(function.signature), common)
    if options.strict:
        found = await to_thread.run_sync(lambda: list(lines.read()))
        problems = [text for line in found if (text := _problem(function, line)) is not None]
        for text in problems[:_PROBLEMS_SHOWN]:
            _say(f"error: {text}")
        if problems:
            _say(f"{len(problems)} of {len(found)} lines are wrong; nothing was created")
            return WRONG
        lines.total = len(found)
        inputs = lines.inputs(found)
    else:
        await to_thread.run_sync(lines.count)
        inputs = lines.inputs(lines.read())
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
    report = Report(sys.stderr, outcomes, lines)
    stopped = False
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(report.show)
            tasks.start_soon(_watch_interrupts, outcomes, report, tasks.cancel_scope)
            async with outcomes:
                async for outcome in outcomes:
                    number = lines.numbers.pop(outcome.index, outcome.index + 1)
                    report.add(outcome)
                    _print_outcome(outcome, number, options, report)
                    if isinstance(outcome.error, _FATAL) and not (stopped or report.interrupted):
                        report.say("no more is created: nothing else would succeed")
                        stopped = True
                        outcomes.stop()
            tasks.cancel_scope.cancel()
    finally:
        report.clear()
        _say(report.summary())
        if options.journal is not None and (stopped or report.interrupted):
            _say(f"to go on with the rest, repeat the command: {options.journal}")
    if report.interrupted:
        return INTERRUPTED
    return FAILED if report.failed else 0


def _problem(function: ModelFunction, line: Line) -> str | None:
    """Return why a line would fail, as far as is known without a request."""
    if isinstance(line.value, Exception):
        return str(line.value)
    try:
        function.check(**line.value)
    except (exceptions.ArgumentError, exceptions.ArgumentTypeError) as error:
        return f"line {line.number}: {'; '.join(str(error).splitlines())}"
    return None


async def _watch_interrupts(
    outcomes: Outcomes, report: Report, everything: anyio.CancelScope
) -> None:
    """At the first Ctrl-C, create nothing more; at the second one, cancel everything."""
    try:
        with anyio.open_signal_receiver(signal.SIGINT) as signals:
            async for _ in signals:
                if report.interrupted:
                    everything.cancel()
                else:
                    report.interrupted = True
                    outcomes.stop()
                    report.say("no more is created; waiting for what runs (Ctrl-C again exits)")
    except (NotImplementedError, RuntimeError, ValueError):
        return  # on Windows, Ctrl-C raises KeyboardInterrupt


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
                "output": None if prediction is None else prediction.to_dict().get("output"),
                "error": None if error is None else str(error),
                "saved": [str(path) for path in outcome.saved],
            }
        )
    elif error is None and options.output is None:
        report.clear()
        print(f"{outcome.index:06d} {printed(outcome.output)}", flush=True)
    if error is not None:
        text = str(error)
        report.say(text if text.startswith("line ") else f"line {number}: {text}")


_COMMANDS: Final[Mapping[str, Callable[[Client, argparse.Namespace], Awaitable[int]]]] = {
    "run": _run,
    "stream": _stream,
    "map": _map,
    "predictions list": _list,
    "predictions get": _get,
    "predictions cancel": _cancel,
}
