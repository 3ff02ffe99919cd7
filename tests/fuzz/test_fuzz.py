"""Hostile bytes and texts for all that reads what strangers send: whatever comes, the error is one of ours.

Each target gets a few inputs in the ordinary tests. `nox -s fuzz` gives them a million in all. What it finds
becomes an `@example` here.
"""

from __future__ import annotations

import inspect
import json
import os
import pydoc
import sqlite3
import tempfile
import time
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from replicate_async import (
    Deployment,
    FileOutput,
    Model,
    Prediction,
    Training,
    Version,
    exceptions,
)
from replicate_async._cli.inputs import InputTypes
from replicate_async._cli.lines import Line, Lines
from replicate_async._cli.outputs import printed, to_json
from replicate_async._codec import decode_json, encode_json, structure
from replicate_async._files.data_uris import DataUri
from replicate_async._files.holders import names_of
from replicate_async._files.media import safe_name
from replicate_async._files.output_trees import to_output
from replicate_async._http.errors import status_error
from replicate_async._http.limits import Gate
from replicate_async._http.retry import retry_after
from replicate_async._jobs.events import Parser, SeenEvents, done_reason, failure_text
from replicate_async._jobs.policy import failure_kind, progress
from replicate_async._references import parse_name, parse_reference, parse_version
from replicate_async._verbs.map_fingerprint import Fingerprint
from replicate_async._verbs.map_journal import Journal
from replicate_async._verbs.schema import is_below, read_schema
from replicate_async.types import RateLimit

TARGETS = 14
"""Number of tests here, which share the inputs of a session."""

INPUTS = int(os.environ.get("REPLICATE_FUZZ_INPUTS", "0"))

fuzzed = settings(
    max_examples=max(INPUTS // TARGETS, 60),
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.data_too_large,
    ],
)

# -- What is made of ---------------------------------------------------------------------------

anything = st.text(st.characters(), max_size=40)
"""Texts of all characters, lone surrogates among them."""

numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([10**400, -(10**400), 2**63, -0.0, 1e308, float("nan")]),
    st.integers(4290, 4310).map(lambda exponent: 10**exponent),
)

scalars = st.one_of(st.none(), st.booleans(), numbers, anything)

DATES = (
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-12:00",
    "2024-02-30T00:00:00Z",
    "2024-01-01",
)

values = st.recursive(
    st.one_of(scalars, st.sampled_from(DATES)),
    lambda children: st.one_of(
        st.lists(children, max_size=4), st.dictionaries(anything, children, max_size=4)
    ),
    max_leaves=12,
)

FIELDS = (
    *(
        "id",
        "status",
        "model",
        "version",
        "input",
        "output",
        "logs",
        "error",
        "metrics",
        "urls",
        "created_at",
    ),
    *(
        "started_at",
        "completed_at",
        "webhook_events_filter",
        "deadline",
        "data_removed",
        "owner",
        "name",
    ),
    *(
        "latest_version",
        "openapi_schema",
        "cog_version",
        "current_release",
        "configuration",
        "get",
        "stream",
    ),
    *(
        "results",
        "next",
        "previous",
        "run_count",
        "default_example",
        "hardware",
        "visibility",
        "weights",
    ),
)

records = st.dictionaries(st.sampled_from(FIELDS), values, max_size=8).map(
    lambda record: {"id": "abc", **record}
)


def as_json(value: object) -> bytes:
    """Return JSON, as Python writes it."""
    try:
        return json.dumps(value).encode()
    except ValueError:  # an integer that is too long for this
        return b"1" * 5000


bodies = st.one_of(
    st.binary(max_size=60),
    values.map(as_json),
    st.tuples(values.map(as_json), st.integers(0, 60), st.binary(max_size=4)).map(
        lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + len(parts[2]) :]
    ),
    st.tuples(st.sampled_from([b"[", b'{"a":', b"-", b"1", b'"\\ud800']), st.integers(1, 3000)).map(
        lambda parts: parts[0] * parts[1]
    ),
)

headers = st.one_of(
    anything,
    st.from_regex(r"[ \t]*-?[0-9]{0,20}(\.[0-9]{0,5})?[ \t]*", fullmatch=True),
    st.datetimes().map(lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S GMT")),
    st.sampled_from(
        [
            *(
                "Fri, 31 Dec 9999 23:59:59 -2359",
                "Mon, 01 Jan 0001 00:00:00 +2359",
                "9999-12-31T23:59:59-23:59",
            ),
            *("inf", "nan", "1e400", "\u0661", "-1", "0x10", "1_000", "9" * 5000),
        ]
    ),
)


# -- JSON and what is made of it ---------------------------------------------------------------


@fuzzed
@given(bodies)
def test_json(body: bytes) -> None:
    """JSON is read, or a `ValueError` says why not; what is read can be written again, in the same form."""
    try:
        value = decode_json(body)
    except ValueError:
        return
    try:
        again = encode_json(value)
    except ValueError:
        return
    assert encode_json(decode_json(again)) == again


@fuzzed
@given(st.one_of(values, records))
def test_records(value: Any) -> None:
    """A record of any content is read, or refused with a `ValueError`, and can be shown and printed."""
    for cls in (Prediction, Training, Model, Version, Deployment):
        try:
            record = structure(value, cls)
        except ValueError:
            continue
        assert repr(record)
        assert record == structure(record.to_dict(), cls)
        assert isinstance(record.extra, dict)


@fuzzed
@given(values)
def test_outputs(value: Any) -> None:
    """An output of any form is shown to users and printed by the commands, and its files have names."""
    output = to_output(value, None, files=True)
    assert isinstance(printed(output) if not _has_long(value) else "", str)
    assert isinstance(to_json(output, ascii_only=True) if not _has_long(value) else "", str)


def _has_long(value: object) -> bool:
    """Tell whether a value has an integer that Python writes at the command line only, which raises its limit."""
    try:
        json.dumps(value)
    except ValueError:
        return True
    return False


# -- Streams -----------------------------------------------------------------------------------

lines = st.one_of(
    st.binary(max_size=20),
    st.builds(
        lambda name, colon, value: name + colon + value,
        st.sampled_from([b"event", b"data", b"id", b"retry", b"", b"\xef\xbb\xbfdata", b":"]),
        st.sampled_from([b":", b": ", b"", b"::"]),
        st.one_of(
            st.binary(max_size=20),
            st.sampled_from([b"output", b"done", b"error", b"408", b"9" * 99]),
        ),
    ),
)

streams = st.lists(
    st.builds(
        lambda line, end: line + end, lines, st.sampled_from([b"\n", b"\r\n", b"\r", b"\n\n", b""])
    ),
    max_size=12,
).map(b"".join)


@fuzzed
@given(streams, st.lists(st.integers(1, 30), max_size=8), st.sampled_from([10, 100, 10**6]))
@example(b"\xef\xbb\xbf\0\0\0\0\0\0\0\0\n", [11], 10)
def test_events(stream: bytes, cuts: list[int], limit: int) -> None:
    """Events are the same in whatever chunks they arrive, and no event is larger than the limit."""
    whole, piecewise = Parser(limit), Parser(limit)
    expected = whole.feed(stream)
    found = []
    rest = stream
    for cut in cuts:
        found += piecewise.feed(rest[:cut])
        rest = rest[cut:]
    found += piecewise.feed(rest)
    assert found == expected
    assert (piecewise.last_id, piecewise.retry) == (whole.last_id, whole.retry)
    assert piecewise.overflowed == whole.overflowed
    assert all(len(event.data.encode()) <= 3 * limit for event in found)
    seen = SeenEvents()
    assert seen.new(found) == found
    for event in found:
        assert isinstance(failure_text(event.data), str)
        assert isinstance(done_reason(event.data), str | None)


# -- URLs, names and references ----------------------------------------------------------------

uris = st.builds(
    lambda scheme, kind, base64, comma, content: f"{scheme}{kind}{base64}{comma}{content}",
    st.sampled_from(["data:", "DATA:", "https://", "http://[", "data", ""]),
    st.one_of(anything, st.sampled_from(["image/png", "text/plain;charset=x", ""])),
    st.sampled_from([";base64", ";BASE64 ", "", ";"]),
    st.sampled_from([",", "", ",,"]),
    st.one_of(
        anything,
        st.binary(max_size=20).map(quote),
        st.from_regex(r"[A-Za-z0-9+/=%\s]*", fullmatch=True),
    ),
)


@fuzzed
@given(uris)
def test_files(url: str) -> None:
    """A file has properties and a `repr` whatever its URL is; a data URI has the size that it says."""
    file = FileOutput(url)
    assert file.name
    assert repr(file)
    assert isinstance(file._repr_mimebundle_(), dict)
    assert file.content_type is None or file.content_type
    if not url[:5].lower().startswith("data:"):
        return
    try:
        data = DataUri(url)
        content = data.decode(0, data.length)
    except exceptions.FileOutputError:
        return
    assert len(content) == data.size


@fuzzed
@given(
    anything, st.sampled_from(["", "owner/name", "https://replicate.com/", ":", "/", "\x00", "%2f"])
)
@example("\ud800", "owner/name")
def test_references(text: str, other: str) -> None:
    """A reference is read, or refused with an error of ours."""
    for value in (text, text + other, other + text):
        for parse in (
            lambda value: parse_reference(value),
            lambda value: parse_version(value, "version"),
            lambda value: parse_name(value, None, "model"),
        ):
            with suppress(exceptions.ArgumentError, exceptions.ArgumentTypeError):
                parse(value)


@fuzzed
@given(anything)
def test_names_of_files(text: str) -> None:
    """Any name becomes one that stays in its directory and can be created everywhere."""
    name = safe_name(text)
    assert name not in ("", ".", "..")
    assert Path(name).name == name
    assert len(name.encode()) <= 255


# -- Headers -----------------------------------------------------------------------------------


@fuzzed
@given(headers, values)
def test_retry_after(value: str, body: Any) -> None:
    """Whatever a server asks for is some seconds, or nothing."""
    seconds = retry_after({"retry-after": value}, body, now=datetime(2026, 1, 1, tzinfo=UTC))
    assert seconds is None or 0 <= seconds < float("inf")


@fuzzed
@given(
    st.dictionaries(st.sampled_from(["Retry-After", "ratelimit-remaining", "X"]), headers), bodies
)
def test_errors(fields: dict[str, str], body: bytes) -> None:
    """An error answer of any content becomes an exception with a message."""
    error = status_error("GET", "https://x", 418, fields, body)
    assert str(error)
    assert repr(error)
    gate = Gate(RateLimit().creates, 60.0)
    gate.learn(fields)
    gate.refused(1.0, error.detail)


class Holder:
    """A response with a header."""

    def __init__(self, disposition: str, url: str) -> None:
        self.headers = {"Content-Disposition": disposition}
        self.url = url


@fuzzed
@given(
    st.builds(
        lambda start, name, text: f"{start}{name}{text}",
        st.sampled_from(["attachment; ", "", "inline;", "form-data; name=x; "]),
        st.sampled_from(
            ["filename=", "filename*=", "filename*=UTF-8''", 'filename="', "filename*0=", "x"]
        ),
        st.one_of(
            anything, anything.map(lambda text: quote(text.encode("utf-8", "replace")) + '"')
        ),
    ),
    uris,
)
@example("attachment; filename=" + chr(0xD800), "x")
def test_content_disposition(disposition: str, url: str) -> None:
    """The name that a response gives to a file is some text, which becomes a safe one."""
    for name in names_of(Holder(disposition, url)):
        assert safe_name(name)


@fuzzed
@given(
    st.one_of(
        anything,
        st.lists(
            st.sampled_from(
                ["100%", "|", " 3/7 ", "[", "it/s", "9" * 400, "%", "\r", "E1001", "violat"]
            )
        ).map("".join),
    ),
    st.integers(1, 3000),
)
def test_logs(text: str, times: int) -> None:
    """Logs and error texts are read in little time, whatever is in them."""
    began = time.process_time()
    shown = progress(text * times)
    assert shown is None or 0 <= shown.percentage <= 1
    assert failure_kind(text * times)[1]
    assert time.process_time() - began < 1


# -- Schemas -----------------------------------------------------------------------------------

NAMES = (
    "lambda",
    "class",
    "self",
    "input",
    "inputs",
    "others",
    "other_inputs",
    "",
    "a b",
    "\ud800",
    "prompt",
)

TYPES: tuple[Any, ...] = (
    "string",
    "integer",
    "number",
    "boolean",
    "array",
    "object",
    "null",
    "file",
    5,
    ["string", "null"],
    [],
)

nodes: st.SearchStrategy[Any] = st.recursive(
    st.one_of(scalars, st.just({})),
    lambda children: st.dictionaries(
        st.sampled_from(
            [
                *(
                    "type",
                    "format",
                    "default",
                    "enum",
                    "minimum",
                    "maximum",
                    "minLength",
                    "maxLength",
                    "items",
                ),
                *(
                    "nullable",
                    "description",
                    "title",
                    "x-order",
                    "x-cog-secret",
                    "deprecated",
                    "allOf",
                    "anyOf",
                ),
                *("$ref", "additionalProperties", "properties", "required", "x-cog-array-type"),
            ]
        ),
        st.one_of(
            children,
            st.lists(children, max_size=3),
            st.sampled_from(TYPES),
            st.sampled_from(
                ["uri", "#/components/schemas/Input", "iterator", "concatenate", "password"]
            ),
            st.dictionaries(st.sampled_from(NAMES), children, max_size=3),
            st.lists(st.sampled_from(NAMES), max_size=3),
            numbers,
        ),
        max_size=6,
    ),
    max_leaves=8,
)

documents = st.builds(
    lambda properties, more, output: {
        "components": {
            "schemas": {
                "Input": {"type": "object", "properties": properties, **more},
                "Output": output,
            }
        }
    },
    st.one_of(
        st.dictionaries(st.one_of(st.sampled_from(NAMES), anything), nodes, max_size=5), nodes
    ),
    st.dictionaries(
        st.sampled_from(["required", "additionalProperties", "type"]), nodes, max_size=2
    ),
    nodes,
)


@fuzzed
@given(
    st.one_of(documents, values),
    st.one_of(
        scalars, st.from_regex(r"v?\d+(\.\d+){0,3}((a|rc|\.dev|\.post)\d*)?", fullmatch=True)
    ),
    st.dictionaries(st.sampled_from(NAMES), values, max_size=3),
    values,
)
def test_schemas(
    document: Any, cog_version: Any, given_inputs: dict[str, Any], output: Any
) -> None:
    """A schema of any content is read; it describes inputs, checks them and converts outputs."""
    version = cog_version if isinstance(cog_version, str) else None
    assert is_below(version, (0, 3, 9)) in (True, False)
    schema = read_schema(document, version)
    if schema is None:
        return
    assert isinstance(schema.described(), str)
    signature = schema.signature(Path, FileOutput)
    assert isinstance(signature, inspect.Signature)
    str(signature)
    for problem in schema.problems(given_inputs):
        assert problem.text
    assert schema.secrets <= schema.inputs.keys()

    def function() -> None: ...

    function.__doc__ = schema.described()
    function.__signature__ = signature  # type: ignore[attr-defined]
    assert pydoc.render_doc(function)
    schema.convert(output, str, lambda value: value)
    schema.convert_item(output, str, lambda value: value)
    types = InputTypes.of(signature)
    for name in schema.inputs:
        types.value(name, "5")


# -- Files of inputs ---------------------------------------------------------------------------

rows = st.one_of(
    st.binary(max_size=120),
    st.lists(
        st.one_of(
            values.map(as_json),
            st.sampled_from([b"prompt,n", b'"a', b'a"', b",,", b"sep=;", b"\xef\xbb\xbf"]),
        ),
        max_size=5,
    ).map(b"\n".join),
)


@fuzzed
@given(rows, st.sampled_from(["csv", "jsonl"]))
def test_files_of_inputs(content: bytes, format: str) -> None:
    """Each line is an input, or an error with its number; the file as a whole may be refused by an error of ours."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            lines = Lines(file.name, format, InputTypes.of(inspect.Signature()), {})
            lines.count()
            found = list(lines.read())
        except exceptions.ArgumentError:
            return
    assert all(isinstance(line, Line) for line in found)
    assert [line.number for line in found] == sorted(line.number for line in found)
    assert lines.total == len(found)


# -- Journals ----------------------------------------------------------------------------------


@settings(fuzzed, max_examples=max(INPUTS // TARGETS // 20, 20))
@given(
    st.sampled_from(
        ["hash", "state", "attempt", "sent", "intended", "prediction", "record", "files", "seconds"]
    ),
    st.one_of(scalars, st.binary(max_size=20), values.map(lambda value: as_json(value).decode())),
)
def test_rows_of_journals(column: str, value: Any) -> None:
    """A row of any content is read, or is a `JournalError`."""
    fingerprint = Fingerprint("x" * 64, None)

    async def write_and_read(path: Path) -> None:
        journal = Journal(path)
        await journal.open("acme/x")
        await journal.intend(1, fingerprint, "mark", 1)
        await journal.created(1, "abc")
        await journal.ended(1, {"id": "abc", "status": "succeeded"}, None)
        await journal.aclose()
        with closing(sqlite3.connect(path)) as database, database:
            try:
                database.execute(f"UPDATE items SET {column} = ? WHERE number = 1", (value,))
            except (sqlite3.Error, OverflowError, UnicodeEncodeError):
                return
        again = Journal(path)
        try:
            await again.open("acme/x")
            await again.find(1, fingerprint)
            await again.owns("abc")
            await again.uncertain()
        except exceptions.JournalError:
            pass
        finally:
            await again.aclose()

    with tempfile.TemporaryDirectory() as directory:
        anyio.run(write_and_read, Path(directory) / "run.db")


def test_the_number_of_targets() -> None:
    """A session has as many inputs as it says."""
    found = [
        name
        for name in globals()
        if name.startswith("test_") and hasattr(globals()[name], "hypothesis")
    ]
    assert len(found) == TARGETS
