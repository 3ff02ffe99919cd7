"""Inputs of the command line: values, files, JSON lines and CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from .. import exceptions
from .._verbs.use import ModelFunction


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
