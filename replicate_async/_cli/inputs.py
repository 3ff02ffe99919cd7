"""Inputs of the command line: values, JSON lines and CSV."""

from __future__ import annotations

import csv
import inspect
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import attrs

from replicate_async import exceptions


def names_of_texts(signature: inspect.Signature) -> frozenset[str]:
    """Return the names of the inputs that are text, or may be."""
    return frozenset(
        name for name, parameter in signature.parameters.items() if _is_text(parameter.annotation)
    )


def _is_text(annotation: Any) -> bool:
    kind = get_origin(annotation)
    if kind is Literal:
        return all(isinstance(choice, str) for choice in get_args(annotation))
    if kind in (Union, UnionType):
        return any(_is_text(member) for member in get_args(annotation))
    return annotation is str


def split_pair(pair: str) -> tuple[str, str]:
    """Return the name and the text of `NAME=VALUE`."""
    name, equals, text = pair.partition("=")
    if not equals or not name:
        raise exceptions.ArgumentError(pair, "an input has the form NAME=VALUE")
    return name, text


def parse_value(text: str, name: str, texts: Collection[str]) -> Any:
    """Return the value of an input.

    Args:
        text: The value as it was given.
        name: The input.
        texts: The names of the inputs that are text.
    """
    if text.startswith("@"):
        return _file_or_text(text, name)
    if name in texts:
        return text
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text


def _refuse_constant(text: str) -> Any:
    """Refuse NaN and Infinity, which are not JSON."""
    raise ValueError(text)


def _file_or_text(text: str, name: str) -> Path | str:
    """Return the file that text beginning with @ names, or the text after @@."""
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


def _with_files(value: Any, name: str) -> Any:
    """Return a JSON value with files in the place of texts that begin with @."""
    if isinstance(value, str):
        return _file_or_text(value, name) if value.startswith("@") else value
    if isinstance(value, list):
        return [_with_files(item, f"{name}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {key: _with_files(item, f"{name}.{key}") for key, item in value.items()}
    return value


@attrs.frozen
class Line:
    """One input of a file."""

    number: int
    """The line on which it begins, counted from 1."""
    value: Mapping[str, Any] | Exception
    """The input, or the reason why the line is not one."""


class Lines:
    """A file of inputs: JSON lines or CSV.

    Args:
        path: The path of the file; `-` is standard input.
        format: `"jsonl"` or `"csv"`; None: by the name of the file.
        texts: The names of the inputs that are text.
        common: Inputs for all lines that do not set them.
    """

    def __init__(
        self, path: str, format: str | None, texts: Collection[str], common: Mapping[str, Any]
    ) -> None:
        self._path = path
        self._is_csv = (format or Path(path).suffix.lower().lstrip(".")) == "csv"
        self._texts = texts
        self._common = common
        self.numbers: dict[int, int] = {}
        """The line numbers of the inputs in progress, by index."""
        self.total: int | None = None
        """The number of inputs, if known."""
        if path != "-" and not Path(path).is_file():
            raise exceptions.ArgumentError("FILE", f"{path!r} is not a file")

    def count(self) -> None:
        """Set `total`, unless the inputs come from standard input."""
        if self._path != "-":
            self.total = sum(1 for _ in self._rows())

    def inputs(self, lines: Iterable[Line]) -> Iterator[Any]:
        """Yield the inputs, or the errors in their places, and record the numbers of their lines."""
        for index, line in enumerate(lines):
            self.numbers[index] = line.number
            yield line.value

    def read(self) -> Iterator[Line]:
        """Yield the lines; one that cannot be read holds an error."""
        for number, row in self._rows():
            try:
                yield Line(number, self._input(row))
            except (exceptions.ReplicateException, ValueError, RecursionError) as error:
                yield Line(number, exceptions.ArgumentError(f"line {number}", str(error)))

    def _input(self, row: bytes | dict[str, str] | Exception) -> Mapping[str, Any]:
        match row:
            case Exception():
                raise row
            case bytes():
                parsed = _parse_object(row)
            case _:
                parsed = {
                    name: parse_value(text, name, self._texts)
                    for name, text in row.items()
                    if text != "" or name in self._texts
                }
        return {**self._common, **parsed}

    def _rows(self) -> Iterator[tuple[int, bytes | dict[str, str] | Exception]]:
        """Yield line numbers, and lines of JSON, cells of CSV by their headings, or errors."""
        if self._is_csv:
            yield from _csv_rows(_raw_lines(self._path))
        else:
            for number, line in enumerate(_raw_lines(self._path), 1):
                if line.strip():
                    yield number, line


def _parse_object(line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from None
    if not isinstance(row, dict):
        raise ValueError("it is not a JSON object")
    return {name: _with_files(value, name) for name, value in row.items()}


def _csv_rows(lines: Iterable[bytes]) -> Iterator[tuple[int, dict[str, str] | Exception]]:
    reader = csv.reader((line.decode("utf-8", "surrogateescape") for line in lines), strict=True)
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


def _raw_lines(path: str) -> Iterator[bytes]:
    """Yield the lines of a file, or of standard input, with their line ends."""
    if path != "-":
        with Path(path).open("rb") as file:
            yield from file
        return
    # Not `sys.stdin`: a thread that waits in its buffer would delay the exit of the process.
    rest = b""
    with open(0, "rb", buffering=0, closefd=False) as file:
        while chunk := file.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line + b"\n"
    if rest:
        yield rest
