"""The commands `run`, `stream`, `map` and `predictions`.

They print results to standard output, and everything else to standard error. Exit codes: 0, success; 1, something
failed; 2, the command or its arguments are wrong; 130, 143 and 129, ended by Ctrl-C, SIGTERM and SIGHUP.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import anyio
import attrs
from anyio import to_thread

from replicate_async import (
    Client,
    Deployment,
    ModelFunction,
    Outcome,
    Prediction,
    RateLimit,
    exceptions,
    testing,
)
from replicate_async import to_json as to_plain
from replicate_async.types import ForwardedDelivery

from . import streams
from .display import Display, DisplayHandler, Waiting
from .files import Files
from .inputs import InputTypes, split_pair
from .interrupts import Interruption
from .lines import Line, Lines
from .outputs import prepare_directory, printed, save_output, to_json
from .report import Report
from .streams import NotWritten, write, write_json
from .terminal import discard, flat, is_terminal, say, visible

FAILED: Final = 1
WRONG: Final = 2

_MAX_DIGITS: Final = 200_000
"""Digits of an integer that is read and printed; Python's own limit is 4300."""

_DEPLOYMENT: Final = re.compile(r"(?:https://replicate\.com/)?/?deployments/([^/\s]+)/([^/\s]+)/?")

_PROBLEMS_SHOWN: Final = 20
"""How many wrong lines `--strict` reports."""

_FATAL: Final = (
    exceptions.AuthenticationError,
    exceptions.PaymentRequiredError,
    exceptions.PermissionDeniedError,
    exceptions.NotFoundError,
    exceptions.RateLimitError,  # a quota or a spend limit, or it has been repeated for minutes
    exceptions.MissingToken,
    exceptions.DirectoryNotWritable,
)
"""Errors that every further create would have, too."""


def execute(options: argparse.Namespace) -> int:
    """Execute the command of parsed options, and return the exit code."""
    code = 0
    streams.prepare()
    limit_before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(_MAX_DIGITS)
    try:
        with _client_options(emulated=options.emulator) as settings:
            code = anyio.run(_execute, options, settings)
    except* KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except* NotWritten as errors:
        discard()
        for error in flat(errors):
            if error.prediction is not None or not error.is_broken_pipe:
                say(f"error: {error}")
        code = FAILED
    except* (
        exceptions.ArgumentError,
        exceptions.ArgumentTypeError,
        exceptions.JournalError,
    ) as errors:
        code = _report_errors(errors, WRONG)
    except* exceptions.ReplicateException as errors:
        code = _report_errors(errors, FAILED)
    finally:
        sys.set_int_max_str_digits(limit_before)
    return code


def _report_errors(errors: ExceptionGroup[Any], code: int) -> int:
    for error in flat(errors):
        say(f"error: {error}")
    return code


@contextmanager
def _client_options(*, emulated: bool) -> Iterator[dict[str, str]]:
    """Yield the options of the client, which point at an emulator if the command uses one."""
    if not emulated:
        yield {}
        return
    os.environ["no_proxy"] = "*"  # the proxies of the environment do not lead to this machine
    with testing.Emulator() as emulator:
        yield {"api_token": emulator.token, "base_url": emulator.url}


async def _execute(options: argparse.Namespace, settings: Mapping[str, str]) -> int:
    """Execute a command, until it ends or a signal ends it."""
    code = 0
    interruption = Interruption()
    display = Display(sys.stderr)
    logging.getLogger("replicate_async").addHandler(DisplayHandler(display))
    async with anyio.create_task_group() as tasks:
        await tasks.start(interruption.watch)
        tasks.start_soon(display.run)
        async with Client(
            settings.get("api_token"),
            base_url=settings.get("base_url"),
            rate_limit=_rate_limit(options.rate_limit),
            output_hosts=getattr(options, "output_host", None),
        ) as client:
            with interruption.scope:
                try:
                    code = await _COMMANDS[options.command](client, options, interruption, display)
                finally:
                    display.clear()
            if interruption.scope.cancelled_caught:
                code = interruption.exit_code
                if options.command != "map":
                    say(f"interrupted{_fate(client)}")
        tasks.cancel_scope.cancel()
    return code


def _rate_limit(text: str | None) -> RateLimit | None:
    if text is None:
        return None
    try:
        return RateLimit.parse(text)
    except ValueError as error:
        raise exceptions.ArgumentError("--rate-limit", str(error)) from None


async def _reference(client: Client, text: str) -> str | Deployment:
    """Return what to run: a model or version by its name, or a deployment."""
    found = _DEPLOYMENT.fullmatch(text)
    return await client.deployments.get(found[1], found[2]) if found else text


def _fate(client: Client) -> str:
    """Return what has become of the prediction that an interrupted command has created."""
    if client.stats.cancelled:
        return ": the prediction was cancelled"
    return ": the prediction may still be running" if client.stats.created else ""


def _files(options: argparse.Namespace) -> Files:
    """Return the files that inputs may name.

    Raises:
        ArgumentError: `--files-from` is no directory.
    """
    directory: Path | None = options.files_from
    if directory is not None and not directory.is_dir():
        raise exceptions.ArgumentError("--files-from", f"{str(directory)!r} is not a directory")
    return Files(not options.no_files, directory)


async def _parse_inputs(
    function: ModelFunction, pairs: Iterable[str], files: Files
) -> dict[str, Any]:
    """Return the inputs of a function that are given as `NAME=VALUE`."""
    named = [split_pair(pair) for pair in pairs]
    with suppress(exceptions.ReplicateError):  # the create will raise it, too
        await function.load()
    types = InputTypes.of(function.signature, files)

    def parse() -> dict[str, Any]:
        return {name: types.value(name, text) for name, text in named}

    return await to_thread.run_sync(parse)  # which may read files


# -- run, stream -------------------------------------------------------------------------------


async def _run(
    client: Client, options: argparse.Namespace, _: Interruption, display: Display
) -> int:
    ref = await _reference(client, options.model)
    function = client.use(ref, timeout=options.timeout)
    inputs = await _parse_inputs(function, [*options.given, *options.input], _files(options))
    if options.output is not None:
        await to_thread.run_sync(prepare_directory, options.output)
    waiting = Waiting(client.stats)
    display.watch(waiting.text)
    prediction, output, error = await _result(function, inputs, waiting)
    saved = []
    if options.output is not None and error is None:
        display.watch(lambda: "saving the output")
        saved = await save_output(prediction, output, options.output)
    display.clear()
    if options.json:
        # Without what the schema marks as secret.
        shown = {**to_plain(prediction), "saved": [str(path) for path in saved]}
        write_json(shown, prediction=prediction.id)
    elif error is None:
        text = "\n".join(map(str, saved)) if saved else printed(output)
        write(text, prediction=prediction.id)
    if error is not None:
        say(f"error: {error}")
        return FAILED
    return 0


async def _result(
    function: ModelFunction, inputs: Mapping[str, Any], waiting: Waiting
) -> tuple[Prediction, Any, exceptions.ReplicateException | None]:
    """Run a prediction to its end, and return it with its output, or with the reason why it has none.

    It is cancelled if it does not end in time, or if this is cancelled.
    """
    async with function.start(**inputs) as run:
        waiting.find = lambda: run.prediction
        try:
            async for _ in run.updates():
                pass
            return run.prediction, await run.result(), None
        except exceptions.ReplicateException as error:
            return run.prediction, None, error


async def _stream(
    client: Client, options: argparse.Namespace, _: Interruption, display: Display
) -> int:
    ref = await _reference(client, options.model)
    function = client.use(ref)
    inputs = await _parse_inputs(function, [*options.given, *options.input], _files(options))
    function.check(**inputs)
    last = ""
    stream = client.stream(ref, inputs, timeout=options.timeout)
    display.watch(Waiting(client.stats, lambda: stream.prediction).text)
    async with stream as events:
        async for event in events:
            display.clear()
            assert events.prediction is not None
            name = events.prediction.id
            if options.json:
                shown = {"event": event.event, "data": event.data, "id": event.id}
                write_json(shown, prediction=name)
            elif event.event == "output":
                last = str(event)
                is_file = last.startswith(("https://", "http://", "data:"))
                write(last, end="\n" if is_file else "", prediction=name)
    if last and not last.endswith("\n") and not options.json:
        assert events.prediction is not None
        write("", prediction=events.prediction.id)
    if events.reason == "canceled":
        assert events.prediction is not None
        say(f"error: prediction {events.prediction.id} was cancelled before its end")
        return FAILED
    return 0


# -- predictions -------------------------------------------------------------------------------


async def _list(client: Client, options: argparse.Namespace, *_: object) -> int:
    count = 0
    if options.limit > 0:
        async for prediction in client.predictions.list():
            _print_summary(prediction, options)
            count += 1
            if count >= options.limit:
                break
    return 0


async def _get(
    client: Client, options: argparse.Namespace, _: Interruption, display: Display
) -> int:
    prediction = await client.predictions.get(options.id)
    if options.wait:
        display.watch(Waiting(client.stats, lambda: prediction).text)
        await prediction.wait()
        display.clear()
    _print_summary(prediction, options)
    if not options.json:
        _print_details(prediction)
    return 0


async def _cancel(client: Client, options: argparse.Namespace, *_: object) -> int:
    code = 0
    for prediction_id in options.ids:
        try:
            prediction = await client.predictions.cancel(prediction_id)
        except exceptions.InvalidReference as error:
            say(f"error: {error}")
            code = WRONG
        except exceptions.ReplicateError as error:
            say(f"error: {error}")
            code = code or FAILED
        else:
            _print_summary(prediction, options)
    return code


def _print_summary(prediction: Prediction, options: argparse.Namespace) -> None:
    if options.json:
        write_json(prediction.to_dict())
        return
    row: tuple[str, ...] = (
        prediction.id,
        f"{prediction.status:<10}",
        _when(prediction),
        prediction.model or "-",
    )
    if is_terminal(sys.stdout):
        row = tuple(visible(cell, lines=False) for cell in row)
    write("  ".join(row))


def _when(prediction: Prediction) -> str:
    """Return when a prediction was created, in local time if that is possible."""
    created = prediction.created_at
    if created is None:
        return "-"
    with suppress(OverflowError, ValueError, OSError):  # in the years 1 and 9999
        created = created.astimezone()
    return created.isoformat(" ", "seconds")[:19]


def _print_details(prediction: Prediction) -> None:
    for name in ("version", "deployment", "error"):
        if value := getattr(prediction, name):
            write(f"{name}: {value}")
    write(f"input: {to_json(prediction.input)}")
    write(f"metrics: {to_json(prediction.metrics)}")
    if prediction.output is not None:
        write(printed(prediction.output))


# -- webhooks ----------------------------------------------------------------------------------


async def _listen(client: Client, options: argparse.Namespace, *_: object) -> int:
    def report(delivery: ForwardedDelivery) -> None:
        if options.json:
            write_json(attrs.asdict(delivery))
            return
        answer = delivery.error if delivery.status is None else str(delivery.status)
        write(f"{delivery.id}  {delivery.event:<9}  {delivery.job_status:<10}  {answer}")

    say(f"forwarding webhooks to {options.forward}; Ctrl-C ends this")
    await client.webhooks.forward(
        options.forward, interval=options.interval, everything=options.all, report=report
    )
    return 0


# -- map ---------------------------------------------------------------------------------------


async def _map(
    client: Client, options: argparse.Namespace, interruption: Interruption, display: Display
) -> int:
    function = client.use(await _reference(client, options.model))
    files = _files(options)
    common = await _parse_inputs(function, options.input, files)
    lines = Lines(options.inputs, options.format, InputTypes.of(function.signature, files), common)
    if options.strict:
        found = await to_thread.run_sync(lambda: list(lines.read()))
        if _say_problems(function, found):
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
        redo=options.redo,
    )
    report = Report(outcomes, lines, client.stats)
    display.watch(report.state)

    def stop_creating() -> None:
        outcomes.stop()
        display.say("no more is created; waiting for what runs (Ctrl-C again exits)")

    interruption.on_first_interrupt = stop_creating
    stopped = False
    try:
        async with outcomes:
            async for outcome in outcomes:
                number = lines.numbers.pop(outcome.index, outcome.index + 1)
                report.add(outcome)
                reason = _print_outcome(outcome, number, options, report, display)
                if isinstance(outcome.error, _FATAL):
                    reason = "nothing else would succeed"
                if reason is not None and not stopped and interruption.signal is None:
                    display.say(f"no more is created: {reason}")
                    stopped = True
                    outcomes.stop()
    finally:
        display.clear()
        say(("interrupted: " if interruption.signal else "") + report.summary())
        if options.journal is not None:
            _say_what_the_journal_has(options.journal, report, interruption, is_stopped=stopped)
        elif interruption.scope.cancel_called:
            say(f"predictions that were cancelled: {client.stats.cancelled}")
    if interruption.signal is not None:
        return interruption.exit_code
    return FAILED if report.failed or stopped else 0


def _say_what_the_journal_has(
    journal: Path, report: Report, interruption: Interruption, *, is_stopped: bool
) -> None:
    """Say how to continue with a journal after a fan-out that has not succeeded with all inputs."""
    if is_stopped or interruption.signal:
        if interruption.scope.cancel_called:
            say("predictions that are running go on")
        say(f"to go on with the rest, repeat the command: {journal}")
    elif report.failed:
        say("the journal has the failures, too: --redo runs them again (see map --help)")


def _say_problems(function: ModelFunction, lines: Sequence[Line]) -> bool:
    """Say which lines would fail, and return whether there are any."""
    problems = [text for line in lines if (text := _problem(function, line)) is not None]
    for text in problems[:_PROBLEMS_SHOWN]:
        say(f"error: {text}")
    if problems:
        say(f"{len(problems)} of {len(lines)} lines are wrong; nothing was created")
    return bool(problems)


def _problem(function: ModelFunction, line: Line) -> str | None:
    """Return why a line would fail, as far as is known without a request."""
    if isinstance(line.value, Exception):
        return str(line.value)
    try:
        function.check(**line.value)
    except (exceptions.ArgumentError, exceptions.ArgumentTypeError) as error:
        return f"line {line.number}: {'; '.join(str(error).splitlines())}"
    return None


def _print_outcome(
    outcome: Outcome,
    number: int,
    options: argparse.Namespace,
    report: Report,
    display: Display,
) -> str | None:
    """Print an outcome; return why no further ones should be created, if so."""
    prediction, error = outcome.prediction, outcome.error
    if error is not None:
        text = str(error)
        display.say(text if text.startswith("line ") else f"line {number}: {text}")
    try:
        if report.not_written is not None and prediction is not None:
            raise NotWritten(report.not_written.cause, prediction.id)
        with display.cleared():
            _write_outcome(outcome, number, options)
    except NotWritten as failure:
        if failure.is_broken_pipe:
            raise  # whoever has read the outputs wants no more of them
        discard()
        report.not_written = failure
        display.say(f"line {number}: {failure}")
        return "the outputs cannot be written"
    return None


def _write_outcome(outcome: Outcome, number: int, options: argparse.Namespace) -> None:
    prediction, error = outcome.prediction, outcome.error
    name = None if prediction is None else prediction.id
    if options.json:
        shown = {
            "index": outcome.index,
            "line": number,
            "id": name,
            "status": None if prediction is None else prediction.status,
            "output": None if prediction is None else prediction.to_dict().get("output"),
            "error": None if error is None else str(error),
            "saved": [str(path) for path in outcome.saved],
        }
        write_json(shown, prediction=name)
    elif error is None and options.output is None:
        write(f"{outcome.index:06d} {printed(outcome.output)}", prediction=name)


_COMMANDS: Final[
    Mapping[str, Callable[[Client, argparse.Namespace, Interruption, Display], Awaitable[int]]]
] = {
    "run": _run,
    "stream": _stream,
    "map": _map,
    "predictions list": _list,
    "predictions get": _get,
    "predictions cancel": _cancel,
    "webhooks listen": _listen,
}
