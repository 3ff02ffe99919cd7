"""The commands that run models: `run`, `stream`, `map` and `predictions`.

Results go to standard output, all else to standard error. Exit codes: 0, all went well; 1, something failed; 2, the
command or its arguments are wrong; 130, interrupted.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    import argparse

    from ._functions import ModelFunction
    from ._map import Outcome, Outcomes
    from .client import Client
    from .resources.predictions import Prediction

FAILED: Final = 1
WRONG: Final = 2
INTERRUPTED: Final = 130

_TICK: Final = 0.2
_PLAIN_EVERY: Final = 10.0


# -- The parsers -------------------------------------------------------------------------------


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
    from . import exceptions

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
    from .testing import Emulator

    os.environ["no_proxy"] = "*"  # a proxy of the environment cannot reach it
    with Emulator() as emulator:
        yield {"api_token": emulator.token, "base_url": emulator.url}


async def _with_client(
    settings: dict[str, str],
    command: Callable[[Client, Any], Coroutine[Any, Any, int]],
    options: argparse.Namespace,
) -> int:
    from .client import Client

    async with Client(settings.get("api_token"), base_url=settings.get("base_url")) as client:
        return await command(client, options)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str), flush=True)


# -- Inputs of the command line ----------------------------------------------------------------


async def _given(
    client: Client, model: str, pairs: Iterable[str]
) -> tuple[ModelFunction, dict[str, Any]]:
    """Return the model as a function, and the inputs, as what the model wants."""
    from . import exceptions

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


def _type(function: ModelFunction, name: str) -> str | None:
    field = None if function._schema is None else function._schema.inputs.get(name)
    return None if field is None else field.type


def _value(text: str, type: str | None, name: str) -> Any:
    """Return what a text stands for, where the model wants a value of a type."""
    if text.startswith("@"):
        return _at(text, name)
    if type == "string":
        return text
    try:
        return json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return text


def _no_number(text: str) -> Any:
    raise ValueError(text)


def _at(text: str, name: str) -> Any:
    """Return the file that a text beginning with @ stands for, or the text after @@."""
    from . import exceptions

    if text.startswith("@@"):
        return text[1:]
    path = Path(text[1:])
    try:
        if not path.is_file():
            raise FileNotFoundError(2, "there is no such file")
        with path.open("rb"):
            return path
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise exceptions.ArgumentError(name, f"{text[1:]!r} cannot be read: {reason}") from error


# -- run, stream -------------------------------------------------------------------------------


async def _run(client: Client, options: argparse.Namespace) -> int:
    from . import _runs, exceptions
    from ._map import planned
    from .resources import _jobs
    from .resources.predictions import Options, prepare

    function, given = await _given(client, options.model, [*options.given, *options.input])
    if options.output is not None:
        await _ready(options.output)
    context = client._context
    settings = _runs.with_deadline(Options(wait=True), options.timeout, "cancel")
    order = await prepare(context, await function._given(given), settings)
    begun = _runs.Begun(context, "cancel")
    try:
        async with asyncio.timeout(options.timeout):
            prediction = await _runs._once(begun, function._target, order)
    except TimeoutError:
        if begun.prediction is None:
            raise
        canceled = begun.prediction.status in ("canceled", "aborted")
        raise exceptions.RunTimeout(begun.prediction, options.timeout, canceled=canceled) from None
    error = _jobs.failure(prediction)
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
    from ._files import ready_directory

    await ready_directory(directory)


def _unused(path: Path) -> Path:
    found, number = path, 2
    while found.exists():
        found, number = path.with_name(f"{path.stem}-{number}{path.suffix}"), number + 1
    return found


def _shown(output: object) -> str:
    """Return an output for people: text as it is, files as their URLs, one on a line."""
    from ._files import FileOutput, shown

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


# -- predictions -------------------------------------------------------------------------------


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
    from . import exceptions

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
    for name, shown in (("input", prediction.input), ("metrics", prediction.metrics)):
        print(f"{name}: {json.dumps(shown, ensure_ascii=False)}")
    if prediction.output is not None:
        print(_shown(prediction.output))
    sys.stdout.flush()


# -- map ---------------------------------------------------------------------------------------


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
    begun = time.monotonic()
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
            _say(report.summary(time.monotonic() - begun))
            if fan.stopping and options.journal is not None:
                _say(f"the same command goes on with what is left: {options.journal}")
    if report.interrupted:
        return INTERRUPTED
    return FAILED if report.failed else 0


def _fatal() -> tuple[type[Exception], ...]:
    """Return the errors that every further create would meet, too."""
    from . import exceptions

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


# -- The lines of the inputs -------------------------------------------------------------------


class Line:
    """One input, with the number of its line."""

    __slots__ = ("number", "value")

    def __init__(self, number: int, value: Mapping[str, Any] | Exception) -> None:
        self.number = number
        self.value = value


class Lines:
    """A file of inputs: JSON lines or CSV."""

    def __init__(
        self, path: str, format: str | None, function: ModelFunction, common: Mapping[str, Any]
    ) -> None:
        self._path = path
        self._is_csv = (format or Path(path).suffix.lower().lstrip(".")) == "csv"
        self._function = function
        self._common = common
        self.numbers: dict[int, int] = {}
        """Line numbers, by index, of what is under way."""
        self.total: int | None = None
        """How many there are, if known."""
        if path != "-" and not Path(path).is_file():
            from . import exceptions

            raise exceptions.ArgumentError("FILE", f"{path!r} is no file")

    def count(self) -> None:
        """Count them, if they are in a file."""
        if self._path == "-":
            return
        count = 0
        for _ in self._rows():
            count += 1
        self.total = count

    def unpack(self, lines: Iterable[Line]) -> Iterator[Any]:
        """Yield the inputs, or the errors in their places, and note their lines."""
        for index, line in enumerate(lines):
            self.numbers[index] = line.number
            yield line.value

    def read(self) -> Iterator[Line]:
        """Yield the lines; what cannot be read is an error in its place."""
        from . import exceptions

        for number, row in self._rows():
            try:
                yield Line(number, self._input(row))
            except (exceptions.ReplicateException, ValueError, RecursionError) as error:
                yield Line(number, exceptions.ArgumentError(f"line {number}", str(error)))

    def _input(self, row: Any) -> Mapping[str, Any]:
        if isinstance(row, Exception):
            raise row
        if isinstance(row, bytes):
            try:
                row = json.loads(row.decode("utf-8-sig"), parse_constant=_no_number)
            except UnicodeDecodeError:
                raise ValueError("it is not UTF-8") from None
            except ValueError as error:
                raise ValueError(f"it is no JSON ({error})") from None
            if not isinstance(row, dict):
                raise ValueError("it is no JSON object")
            row = {name: _with_files(value, name) for name, value in row.items()}
        else:
            row = {
                name: _value(text, _type(self._function, name), name)
                for name, text in row.items()
                if text != "" or _type(self._function, name) == "string"
            }
        return {**self._common, **row}

    def _rows(self) -> Iterator[tuple[int, Any]]:
        """Yield numbers and rows: bytes of JSON, or what CSV has, or an error."""
        if not self._is_csv:
            for number, line in enumerate(_raw_lines(self._path), 1):
                if line.strip():
                    yield number, line
            return
        decoded = (line.decode("utf-8", "surrogateescape") for line in _raw_lines(self._path))
        reader = csv.reader(decoded, strict=True)
        head: list[str] | None = None
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield number, ValueError(str(error))
                continue
            if head is None:
                head = [cell.strip().removeprefix("\ufeff") for cell in cells]
            elif len(cells) > len(head):
                yield number, ValueError(f"it has {len(cells)} cells under {len(head)} headings")
            elif any("\udc80" <= character <= "\udcff" for cell in cells for character in cell):
                yield number, ValueError("it is not UTF-8")
            elif cells:
                yield number, dict(zip(head, cells, strict=False))


def _with_files(value: Any, name: str) -> Any:
    if isinstance(value, str):
        return _at(value, name) if value.startswith("@") else value
    if isinstance(value, list):
        return [_with_files(item, f"{name}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {key: _with_files(item, f"{name}.{key}") for key, item in value.items()}
    return value


def _raw_lines(path: str) -> Iterator[bytes]:
    """Yield the lines of a file, or of standard input, with their ends."""
    if path != "-":
        with Path(path).open("rb") as file:
            yield from file
        return
    # Not `sys.stdin`: a thread that waits in its buffer would hold up the end of the process.
    rest = b""
    with open(0, "rb", buffering=0, closefd=False) as file:
        while chunk := file.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line + b"\n"
    if rest:
        yield rest


# -- Progress ----------------------------------------------------------------------------------


class Report:
    """Tells how far it is: in one line that changes on a terminal, else now and then in a line of its own."""

    def __init__(
        self, file: TextIO, total: Callable[[], int | None], in_flight: Callable[[], int]
    ) -> None:
        self._file = file
        self._is_terminal = file.isatty()
        self._total = total
        self._in_flight = in_flight
        self._ends: deque[float] = deque(maxlen=200)
        self._is_shown = False
        self._told = time.monotonic()
        self.done = 0
        self.failed = 0
        self.seconds = 0.0
        self.interrupted = False

    def add(self, outcome: Outcome) -> None:
        """Take an outcome into account."""
        self.done += outcome.error is None
        self.failed += outcome.error is not None
        self._ends.append(time.monotonic())
        if outcome.prediction is not None:
            spent = outcome.prediction.metrics.get("predict_time")
            if isinstance(spent, (int, float)):
                self.seconds += spent

    async def tick(self) -> None:
        """Show it again and again."""
        while True:
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            if self._is_terminal:
                self._file.write(f"\r\x1b[K{self.line()}")
                self._file.flush()
                self._is_shown = True
            elif now - self._told >= _PLAIN_EVERY:
                self._told = now
                self.say(self.line())

    def line(self) -> str:
        """Return how far it is."""
        parts = [f"done {self.done}", f"failed {self.failed}", f"in flight {self._in_flight()}"]
        rate = self._rate()
        parts.append(f"{rate:.1f}/s")
        total = self._total()
        if total is not None and rate > 0:
            parts.append(f"{_time(max(total - self.done - self.failed, 0) / rate)} left")
        parts.append(f"{self.seconds:.1f} predict seconds")
        if total is not None:
            parts[0] += f" of {total}"
        return "  ".join(parts)

    def summary(self, seconds: float) -> str:
        """Return what it came to."""
        what = "interrupted: " if self.interrupted else ""
        return (
            f"{what}{self.done} done, {self.failed} failed in {_time(seconds)},"
            f" {self.seconds:.1f} predict seconds"
        )

    def say(self, text: str) -> None:
        """Print a line of its own."""
        self.clear()
        print(text, file=self._file, flush=True)

    def clear(self) -> None:
        """Take the line that changes away."""
        if self._is_shown:
            self._file.write("\r\x1b[K")
            self._file.flush()
            self._is_shown = False

    def end(self) -> None:
        """Show nothing more."""
        self.clear()

    def _rate(self) -> float:
        if len(self._ends) < 2:
            return 0.0
        span = time.monotonic() - self._ends[0]
        return len(self._ends) / span if span > 0 else 0.0


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
