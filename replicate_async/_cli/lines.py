"""Files of inputs: JSON lines, and CSV as spreadsheets and pandas write it."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from io import BufferedReader, FileIO, TextIOWrapper
from itertools import chain
from pathlib import Path
from typing import Any, Final

import attrs

from replicate_async import exceptions

from .inputs import InputTypes, parse_object

_BUFFER: Final = 2**18
_MAX_CELL: Final = 2**31 - 1
_DELIMITERS: Final = ",;\t"
_QUOTED: Final = re.compile(r'"(?:[^"]|"")*"')
_SEPARATOR: Final = re.compile(r'"?sep=(.)"?\r?\n?', re.IGNORECASE)
"""A first line that tells Excel the delimiter."""


@attrs.frozen
class Line:
    """One input of a file."""

    number: int
    """The line on which it begins, counted from 1."""
    value: Mapping[str, Any] | Exception
    """The input, or the reason why the line is not one."""


@attrs.frozen
class _Cells:
    """A row of CSV."""

    by_heading: Mapping[str, str]
    """The cells that are not empty."""
    decimal_comma: bool
    """Whether numbers may have a comma."""


class Lines:
    """A file of inputs: JSON lines or CSV.

    Args:
        path: The path of the file; `-` is standard input.
        format: `"jsonl"` or `"csv"`; None: by the name of the file.
        types: The types of the inputs.
        common: Inputs for all lines that do not set them.

    Raises:
        ArgumentError: There is no such file.
    """

    def __init__(
        self, path: str, format: str | None, types: InputTypes, common: Mapping[str, Any]
    ) -> None:
        self._path = path
        self._is_csv = (format or Path(path).suffix.lower().lstrip(".")) in ("csv", "tsv")
        self._types = types
        self._common = common
        self.numbers: dict[int, int] = {}
        """The line numbers of the inputs in progress, by index."""
        self.total: int | None = None
        """The number of inputs, if known."""
        if path != "-" and not Path(path).is_file():
            raise exceptions.ArgumentError("FILE", f"{path!r} is not a file")

    def count(self) -> None:
        """Set `total`, unless the inputs come from standard input.

        Raises:
            ArgumentError: The headings of CSV cannot be used.
        """
        if self._path != "-":
            self.total = sum(1 for _ in self._rows())

    def inputs(self, lines: Iterable[Line]) -> Iterator[Any]:
        """Yield the inputs, or the errors in their places, and record the numbers of their lines."""
        for index, line in enumerate(lines):
            self.numbers[index] = line.number
            yield line.value

    def read(self) -> Iterator[Line]:
        """Yield the lines; one that cannot be read holds an error.

        Raises:
            ArgumentError: The headings of CSV cannot be used.
        """
        for number, row in self._rows():
            try:
                yield Line(number, self._input(row))
            except (exceptions.ReplicateException, ValueError, RecursionError) as error:
                yield Line(number, exceptions.ArgumentError(f"line {number}", str(error)))

    def _input(self, row: bytes | _Cells | Exception) -> Mapping[str, Any]:
        types = self._types
        match row:
            case Exception():
                raise row
            case bytes():
                parsed = {name: types.json(name, v) for name, v in parse_object(row).items()}
            case _Cells(by_heading, decimal_comma):
                parsed = {
                    name: types.value(name, text, decimal_comma=decimal_comma)
                    for name, text in by_heading.items()
                }
        return {**self._common, **parsed}

    def _rows(self) -> Iterator[tuple[int, bytes | _Cells | Exception]]:
        """Yield line numbers, and lines of JSON, cells of CSV by their headings, or errors."""
        with closing(_opened(self._path)) as file:
            if self._is_csv:
                yield from _csv_rows(file)
            else:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield number, line


def _opened(path: str) -> BufferedReader:
    """Open a file, or standard input, so that each line can be read as soon as it is written."""
    # Not `sys.stdin`: a thread that waits in its buffer would delay the exit of the process.
    return BufferedReader(FileIO(0 if path == "-" else path, closefd=path != "-"), _BUFFER)


def _csv_rows(file: BufferedReader) -> Iterator[tuple[int, _Cells | Exception]]:
    start = file.peek(2)[:2]
    is_utf16 = start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # "Unicode Text" of Excel
    encoding, errors = ("utf-16", "replace") if is_utf16 else ("utf-8-sig", "surrogateescape")
    with TextIOWrapper(file, encoding, errors, newline="") as lines:
        yield from _rows_of_text(lines)


def _rows_of_text(lines: Iterator[str]) -> Iterator[tuple[int, _Cells | Exception]]:
    skipped = 0
    head = [next(lines, "")]
    if found := _SEPARATOR.fullmatch(head[0]):
        skipped = 1
        delimiter = found[1]
    else:
        quotes = head[0].count('"')
        while quotes % 2 and (more := next(lines, "")):
            head.append(more)  # a heading of several lines
            quotes += more.count('"')
        delimiter = _delimiter("".join(head))
        lines = chain(head, lines)
    # The limit of the module is one for the whole process, which is this command. Prompts and data URIs may be longer
    # than its default of 128 KiB.
    csv.field_size_limit(_MAX_CELL)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    headings: list[str] | None = None
    while True:
        number = skipped + reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, ValueError(str(error))
            continue
        if not any(cells):
            continue  # an empty row, as at the end of spreadsheets
        if headings is None:
            headings = _headings(cells)
            continue
        try:
            yield number, _Cells(_by_heading(headings, cells), decimal_comma=delimiter == ";")
        except ValueError as error:
            yield number, error


def _delimiter(head: str) -> str:
    """Return the delimiter of a line of headings: the most frequent one outside of quotes."""
    bare = _QUOTED.sub("", head)
    return max(_DELIMITERS, key=bare.count)


def _headings(cells: list[str]) -> list[str]:
    """Return the names of the inputs.

    Raises:
        ArgumentError: Two columns have the same.
    """
    found = [cell.strip() for cell in cells]
    for column, heading in enumerate(found):
        if heading and heading in found[:column]:
            first = found.index(heading) + 1
            raise exceptions.ArgumentError(
                "FILE", f"columns {first} and {column + 1} have the same heading, {heading!r}"
            )
    return found


def _by_heading(headings: list[str], cells: list[str]) -> dict[str, str]:
    """Return the cells that are not empty by their headings.

    Raises:
        ValueError: They cannot be read, or have no heading.
    """
    if any("\udc80" <= character <= "\udcff" for cell in cells for character in cell):
        raise ValueError("it is not UTF-8 (in Excel, save as CSV UTF-8)")
    if len(cells) > len(headings) and any(cells[len(headings) :]):
        raise ValueError(f"it has {len(cells)} cells under {len(headings)} headings")
    found: dict[str, str] = {}
    for column, (heading, cell) in enumerate(zip(headings, cells, strict=False)):
        if heading and cell:
            found[heading] = cell
        elif cell and column:  # the first column may be the index of pandas
            raise ValueError(f"cell {column + 1} has no heading")
    return found
