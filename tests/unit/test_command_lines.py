"""Files of inputs for the command line: JSON lines and CSV, as programs write them."""

from __future__ import annotations

import csv
import inspect
import io
import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicate_async import FileOutput, exceptions
from replicate_async._cli.inputs import InputTypes
from replicate_async._cli.lines import Lines

FILE = Path | FileOutput | str


def types(**annotations: Any) -> InputTypes:
    """Return the types of inputs with these annotations."""
    kind = inspect.Parameter.KEYWORD_ONLY
    return InputTypes.of(
        inspect.Signature(
            [inspect.Parameter(name, kind, annotation=a) for name, a in annotations.items()]
        )
    )


TYPES = types(
    text=str,
    style=Literal["a", "b"] | None,
    n=int,
    x=float | None,
    yes=bool,
    image=FILE,
    images=list[FILE],
    texts=list[str],
)


def rows(
    tmp_path: Path, content: bytes, name: str = "in.csv", **common: Any
) -> list[tuple[int, Any]]:
    """Return line numbers and inputs of a file; errors are texts."""
    path = tmp_path / name
    path.write_bytes(content)
    lines = Lines(str(path), None, TYPES, common)
    lines.count()
    found = list(lines.read())
    assert lines.total == len(found)
    return [(line.number, _shown(line.value)) for line in found]


def _shown(value: Mapping[str, Any] | Exception) -> Any:
    return str(value) if isinstance(value, Exception) else value


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_dialects(tmp_path: Path, delimiter: str, end: str, encoding: str, quoting: Any) -> None:
    """Delimiters, line ends, byte order marks and quotes of Excel and pandas are recognised."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerows([["text", "n"], ['é, ; \t "q"\nsecond', "1"], ["b", ""], ["", "3"]])
    content = file.getvalue().encode(encoding)
    assert rows(tmp_path, content) == [
        (2, {"text": 'é, ; \t "q"\nsecond', "n": 1}),
        (4, {"text": "b"}),
        (5, {"n": 3}),
    ]


@given(
    cells=st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs"])).filter(lambda t: t[:1] != "@"),
            st.integers(),
        ),
        min_size=1,
    ),
    delimiter=st.sampled_from(",;\t"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
)
def test_any_text_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    cells: list[tuple[str, int]],
    delimiter: str,
    encoding: str,
    quoting: Any,
) -> None:
    """What the csv module writes is read as it was, whatever the texts are."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, quoting=quoting)
    writer.writerows([("text", "n"), *cells])
    found = rows(tmp_path_factory.mktemp("csv"), file.getvalue().encode(encoding))
    expected = [{**({"text": text} if text else {}), "n": n} for text, n in cells]
    assert [value for _, value in found] == expected


def test_as_pandas_writes(tmp_path: Path) -> None:
    """The index has no heading, missing values are empty, numbers with them are floats, and booleans are words."""
    content = b",text,n,yes\n0,a,1.0,True\n1,,2.5,False\n2,NaN,,\n"
    assert rows(tmp_path, content) == [
        (2, {"text": "a", "n": 1, "yes": True}),
        (3, {"n": 2.5, "yes": False}),
        (4, {"text": "NaN"}),
    ]


def test_as_excel_writes(tmp_path: Path) -> None:
    """The line that names the delimiter, commas in numbers, words in capitals, and empty cells and rows at the end."""
    content = b"\xef\xbb\xbfsep=;\r\n\r\ntext;x;yes;;\r\n1,5;0,25;TRUE;;\r\n;;;;\r\nb;1;FALSE\r\n"
    assert rows(tmp_path, content) == [
        (4, {"text": "1,5", "x": 0.25, "yes": True}),
        (6, {"text": "b", "x": 1, "yes": False}),
    ]
    quoted = b'"text","x"\r\n"a","0,25"\r\n'
    assert rows(tmp_path, quoted) == [(2, {"text": "a", "x": "0,25"})], "no number where , delimits"
    assert rows(tmp_path, b'text\n"a, b"\n') == [(2, {"text": "a, b"})]
    assert rows(tmp_path, b'"text\nof two";n\na;1\n')[0][1] == {"text\nof two": "a", "n": 1}
    assert rows(tmp_path, b"text\tn\na\t1\n", "in.tsv") == [(2, {"text": "a", "n": 1})]
    assert rows(tmp_path, b"") == []


def test_what_is_not_given(tmp_path: Path) -> None:
    """An empty cell is no input, so that common ones apply; so is a cell that is missing at the end."""
    content = b"text,style,n\na,,\n,b\n"
    assert rows(tmp_path, content, text="common", n=7) == [
        (2, {"text": "a", "n": 7}),
        (3, {"text": "common", "style": "b", "n": 7}),
    ]


def test_large_cells(tmp_path: Path) -> None:
    """A cell can have megabytes."""
    text = "x, \n" * 2**20
    assert rows(tmp_path, f'text,n\n"{text}",1\n'.encode())[0][1] == {"text": text, "n": 1}


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        ("text,n,text", "columns 1 and 3 have the same heading, 'text'"),
        ("a; b ;b", "columns 2 and 3 have the same heading, 'b'"),
        ('"text"\t"text"', "columns 1 and 2"),
    ],
)
def test_headings_that_are_there_twice(tmp_path: Path, head: str, reason: str) -> None:
    """Which of the two columns counts cannot be guessed."""
    with pytest.raises(exceptions.ArgumentError, match=reason):
        rows(tmp_path, f"\ufeff{head}\n1,2,3\n".encode())


def test_rows_that_cannot_be_read(tmp_path: Path) -> None:
    """They are errors in their places, and harm no others."""
    content = b'text,n,\na,1\nb,2,,\nc,3,x\nd,4,,x\n\xe9,5\n"e"f,6\ng,7\n"h'
    found = rows(tmp_path, content)
    assert [number for number, _ in found] == [2, 3, 4, 5, 6, 7, 8, 9]
    problems = [value for _, value in found if isinstance(value, str)]
    for problem, reason in zip(
        problems,
        (
            "cell 3 has no heading",
            "4 cells under 3 headings",
            "not UTF-8",
            "expected",
            "end of data",
        ),
        strict=True,
    ):
        assert reason in problem


# -- values ------------------------------------------------------------------------------------


def test_files_and_texts_by_the_schema(tmp_path: Path) -> None:
    """`@path` is the content where the model takes text, and the file elsewhere; `@@` stands for `@`."""
    path = tmp_path / "prompt.txt"
    path.write_bytes(b"\xef\xbb\xbfline one\r\nline two \xc3\xa9\n")
    at, text = f"@{path}", "line one\r\nline two é\n"
    line = {
        "text": at, "image": at, "images": [at, "https://example.com/x"], "texts": [at, "@@b"],
        "other": at, "deep": {"a": [at]}, "style": "@@a",
    }  # fmt: skip
    expected = {
        "text": text, "image": path, "images": [path, "https://example.com/x"], "texts": [text, "@b"],
        "other": path, "deep": {"a": [path]}, "style": "@a",
    }  # fmt: skip
    assert rows(tmp_path, json.dumps(line).encode(), "in.jsonl") == [(1, expected)]
    file = io.StringIO()
    cells = {n: v if isinstance(v, str) else json.dumps(v) for n, v in line.items()}
    writer = csv.DictWriter(file, cells)
    writer.writeheader()
    writer.writerow(cells)
    assert rows(tmp_path, file.getvalue().encode())[0][1] == expected
    assert {name: TYPES.value(name, cell) for name, cell in cells.items()} == expected


def test_files_that_are_no_text(tmp_path: Path) -> None:
    """Where text is expected, a file of other bytes is refused; so is one that is not there."""
    path = tmp_path / "photo.png"
    path.write_bytes(b"\x89PNG")
    assert TYPES.value("image", f"@{path}") == path
    with pytest.raises(exceptions.ArgumentError, match=r"text: .*photo.png' is not UTF-8"):
        TYPES.value("text", f"@{path}")
    for name in ("text", "image"):
        with pytest.raises(exceptions.ArgumentError, match="there is no such file"):
            TYPES.value(name, "@nowhere")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("text", "1", "1"),
        ("text", "true", "true"),
        ("style", "1", "1"),
        ("image", "1", "1"),
        ("n", "3", 3),
        ("n", "3.0", 3),
        ("n", "3.5", 3.5),
        ("n", "0,5", "0,5"),
        ("x", "1e-3", 0.001),
        ("x", "NaN", "NaN"),
        ("yes", "TRUE", True),
        ("yes", "False", False),
        ("yes", "yes", "yes"),
        ("texts", '["a", "1"]', ["a", "1"]),
        ("unknown", "null", None),
        ("unknown", "True", "True"),
    ],
)
def test_values(name: str, text: str, value: object) -> None:
    """Text stays text where the model takes text; elsewhere it is JSON, and booleans may be in capitals."""
    found = TYPES.value(name, text)
    assert (found, type(found)) == (value, type(value))


def test_a_long_line_of_a_pipe_takes_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of 60 MB arrives from a pipe in about the time that 60 lines of 1 MB take, and not in 60 times that."""

    def seconds(*sizes: int) -> float:
        ours, theirs = os.pipe()

        def write() -> None:
            with os.fdopen(theirs, "wb") as file:
                for size in sizes:
                    file.write(b'{"text": "' + b"x" * size + b'"}\n')

        thread = threading.Thread(target=write)
        saved = os.dup(0)
        os.dup2(ours, 0)
        os.close(ours)
        try:
            thread.start()
            began = time.thread_time()  # whatever else the machine is doing
            found = [line.value for line in Lines("-", None, TYPES, {}).read()]
            took = time.thread_time() - began
        finally:
            os.dup2(saved, 0)
            os.close(saved)
            thread.join()
        assert [len(value["text"]) for value in found if isinstance(value, dict)] == list(sizes)
        return took

    size = 1_000_000
    assert min(seconds(60 * size) for _ in range(2)) < 10 * max(seconds(*[size] * 60), 0.2)
