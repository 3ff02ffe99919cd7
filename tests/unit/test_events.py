"""Server-sent events: bytes to events, and which of them have been seen before."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from replicate_async._jobs.events import Parser, SeenEvents, done_reason, failure_text, missing
from replicate_async.types import ServerSentEvent

LIMIT = 2**20
Told = tuple[str, str, str | None, int | None]


def told(events: Sequence[ServerSentEvent]) -> list[Told]:
    """Return events as plain tuples."""
    return [(event.event, event.data, event.id, event.retry) for event in events]


def parse(*chunks: bytes, limit: int = LIMIT) -> list[Told]:
    """Return what a parser makes of chunks."""
    parser = Parser(limit)
    return told([event for chunk in chunks for event in parser.feed(chunk)])


def by_the_letter(body: bytes) -> list[Told]:
    """Parse a whole stream as the standard's text says, line by line, with the one exception."""
    text = body.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = re.split("\r\n|\n|\r", text)[:-1]  # what no line end follows is no line yet
    events: list[Told] = []
    data = kind = last_id = ""
    retry: int | None = None
    for line in lines:
        if not line:
            if data or kind in ("done", "error"):
                events.append((kind or "message", data.removesuffix("\n"), last_id or None, retry))
            data, kind, retry = "", "", None
            continue
        if line.startswith(":"):
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            kind = value
        elif field == "data":
            data += value + "\n"
        elif field == "id":
            last_id = last_id if "\0" in value else value
        elif field == "retry" and re.fullmatch("[0-9]+", value):
            retry = int(value)
    return events


# -- Rules, one by one ---------------------------------------------------------------------------

WHOLE = b"event: output\nid: 1764670530:1\ndata:  drifts,\ndata: and rests\n\n"
EXPECTED: list[Told] = [("output", " drifts,\nand rests", "1764670530:1", None)]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_line_ends(end: bytes) -> None:
    """Lines end with LF, CR or CRLF, cut anywhere."""
    body = WHOLE.replace(b"\n", end)
    assert parse(body) == EXPECTED
    assert parse(*(body[i : i + 1] for i in range(len(body)))) == EXPECTED


def test_mixed_line_ends() -> None:
    """Each line may end in another way; LF CR is two ends."""
    assert parse(b"data: a\rdata: b\r\ndata: c\n\rdata: d\n\n") == [
        ("message", "a\nb\nc", None, None),
        ("message", "d", None, None),
    ]


def test_a_cr_ends_a_line_at_once() -> None:
    """An event whose last line end is a CR is not held back for an LF that may follow."""
    parser = Parser(LIMIT)
    assert len(parser.feed(b"data: a\r\n\r")) == 1
    assert parser.feed(b"\ndata: b\r\r") == [ServerSentEvent("message", "b")]


def test_no_other_line_ends() -> None:
    """What else Python takes for a line end is text."""
    text = "a\vb\fc\x1cd\x1de\x1ef\x85g\u2028h\u2029i"
    assert parse(f"event: output\nid: 1\ndata: {text}\n\n".encode()) == [
        ("output", text, "1", None)
    ]
    assert parse(f"data: {text}\n\n".encode()) == [("message", text, None, None)]


def test_byte_order_mark() -> None:
    """One at the very beginning is dropped, also if it is cut; a second one is part of a name."""
    assert parse(b"\xef", b"\xbb", b"\xbf" + WHOLE) == EXPECTED
    assert parse(b"\xef\xbb\xbf" * 2 + b"data: a\n\ndata: b\n\n") == [("message", "b", None, None)]


def test_utf8_split_anywhere() -> None:
    """Characters may be cut; bytes that are none become the replacement character."""
    body = "event: output\nid: 1\ndata: é€😀\n\n".encode()
    for cut in range(len(body)):
        assert parse(body[:cut], body[cut:]) == [("output", "é€😀", "1", None)]
    assert parse(b"data: \xff\xe2\x82\n\n") == [("message", "\ufffd\ufffd", None, None)]


@pytest.mark.parametrize(
    ("line", "data"),
    [
        (b"data: x", "x"),
        (b"data:x", "x"),
        (b"data:  x", " x"),
        (b"data:\tx", "\tx"),
        (b"data", ""),
        (b"data:", ""),
        (b"data: ", ""),
        (b"data: a: b", "a: b"),
    ],
)
def test_one_space_is_removed(line: bytes, data: str) -> None:
    """Of the spaces after the colon, the first is no part of the value; a colon is not needed."""
    assert parse(line + b"\n\n") == [("message", data, None, None)]
    assert parse(b"event: output\nid: 1\n" + line + b"\n\n") == [("output", data, "1", None)]


def test_line_breaks_alone() -> None:
    """Three empty lines of data are two line breaks."""
    for empty in (b"data:", b"data: ", b"data"):
        body = b"event: output\nid: 1\n" + b"\n".join([empty] * 3) + b"\n\n"
        assert parse(body) == [("output", "\n\n", "1", None)]


def test_comments() -> None:
    """They are dropped, wherever they stand."""
    assert parse(b": hi\n\n:\nevent: output\n:x\nid: 1\ndata: a\n: y\ndata: b\n\n") == [
        ("output", "a\nb", "1", None)
    ]


def test_the_server_hangs_up() -> None:
    """Its comment for that is noticed."""
    parser = Parser(LIMIT)
    assert parser.feed(b": hi\n\n") == []
    assert not parser.timed_out
    assert parser.feed(b":408: 408 Request Timeout\n\n") == []
    assert parser.timed_out


def test_ids_persist() -> None:
    """An id holds until the next one; an empty one removes it; one with a NUL is none."""
    body = (
        b"id: 1\ndata: a\n\ndata: b\n\nid: x\0y\ndata: c\n\n"
        b"event: output\nid: x\0y\ndata: d\n\nid\ndata: e\n\n"
    )
    assert parse(body) == [
        ("message", "a", "1", None),
        ("message", "b", "1", None),
        ("message", "c", "1", None),
        ("output", "d", "1", None),
        ("message", "e", None, None),
    ]


def test_the_id_to_resume_after() -> None:
    """It is that of the last whole event, of an event without data, too."""
    parser = Parser(LIMIT)
    parser.feed(b"event: output\nid: 1\ndata: a\n\nevent: output\nid: 2\ndata: b\n")
    assert parser.last_id == "1"
    parser.feed(b"\nid: 3\n\nid: 4\n")
    assert parser.last_id == "3"
    parser.feed(b"\n: x\n\nevent: output\nid: 5\ndata: c\n\n: y\n")
    assert parser.last_id == "5"


def test_retry() -> None:
    """Only digits are a time; it belongs to its event, and to the connection."""
    parser = Parser(LIMIT)
    assert parser.feed(b"retry: 250\n\n") == []
    assert parser.retry == 250
    (event,) = parser.feed(b"retry: 10\ndata: a\n\n")
    assert (event.retry, parser.retry) == (10, 10)
    for nonsense in (b"-1", b"1.5", b"", b"x", "\u0663".encode()):
        (event,) = parser.feed(b"retry: " + nonsense + b"\ndata: a\n\n")
        assert (event.retry, parser.retry) == (None, 10)
    parser.feed(b"retry: " + b"9" * 5000 + b"\n\n")
    assert parser.retry is not None
    assert parser.retry > 10**14


def test_unknown_events_and_fields() -> None:
    """Events of any kind come through; unknown fields are dropped."""
    assert parse(b"event: metric\nid: 1\ndata: 3\nsize: 4\n\n") == [("metric", "3", "1", None)]


def test_events_without_data() -> None:
    """They are dropped, but for `done` and `error`."""
    assert parse(b"event: output\nid: 1\n\nevent: done\n\nevent: error\nid: 2\n\n") == [
        ("done", "", "1", None),
        ("error", "", "2", None),
    ]


def test_an_unfinished_event() -> None:
    """Without its blank line an event has not come."""
    assert parse(b"event: output\nid: 1\ndata: a\n") == []


# -- Any chunking --------------------------------------------------------------------------------

_texts = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8)
_lines = st.one_of(
    st.sampled_from(
        [b"", b"", b"data", b"data:", b"data: ", b"id", b"event", b": x", b":408", b"retry: 7"]
    ),
    st.builds(
        lambda name, gap, value: f"{name}:{gap}{value}".encode(),
        st.sampled_from(["event", "data", "id", "retry", "x", ""]),
        st.sampled_from(["", " ", "  "]),
        st.one_of(_texts, st.sampled_from(["output", "done", "1:0", "12", "\0"])),
    ),
    st.binary(max_size=8),
)
_plain = st.builds(
    lambda number, text: f"event: output\nid: {number}\ndata: {text}\n\n".encode(),
    st.integers(0, 9),
    _texts,
)
_bodies = st.builds(
    lambda mark, parts: mark + b"".join(parts),
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.lists(
        st.one_of(
            _plain,
            st.builds(bytes.__add__, _lines, st.sampled_from([b"\n", b"\n", b"\r", b"\r\n"])),
            st.just(b"\n\n"),
        ),
        max_size=24,
    ),
)


@settings(max_examples=400)
@given(_bodies, st.lists(st.integers(0, 400), max_size=12))
@example(b"event: output\r\nid: 1\r\ndata: a\r\n\r\n", list(range(40)))
@example(b"data: a\nevent: output\nid: 1\ndata: b\n\n", [])
@example(b"event: \nid: \ndata: a\n\n", [])
def test_any_chunking(body: bytes, cuts: list[int]) -> None:
    """However a stream is cut, it parses to the events that the standard gives it."""
    bounds = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    chunks = [body[start:end] for start, end in pairwise(bounds)]
    expected = by_the_letter(body)
    assert parse(*chunks) == expected
    assert parse(body) == expected
    assert parse(*(body[i : i + 1] for i in range(len(body)))) == expected


@settings(max_examples=300)
@given(_bodies, st.integers(1, 60), st.lists(st.integers(0, 400), max_size=6))
@example("ééééé\nevent: output\nid: 0\ndata: \n\n".encode(), 31, [])
@example(b"\xff" * 6 + b"\nevent: output\nid: 0\ndata: \n\n", 29, [])
def test_the_limit_holds_however_it_is_cut(body: bytes, limit: int, cuts: list[int]) -> None:
    """What is too large, and all after it, does not depend on the chunks."""
    body = body.removeprefix(b"\xef\xbb\xbf")
    bounds = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    results = []
    for chunks in (
        [body[start:end] for start, end in pairwise(bounds)],
        [body],
        [body[i : i + 1] for i in range(len(body))],
    ):
        parser = Parser(limit)
        events = told([event for chunk in chunks for event in parser.feed(chunk)])
        results.append((events, parser.overflowed))
    assert results[0] == results[1] == results[2]


# -- Size ----------------------------------------------------------------------------------------


def test_large_lines_and_events() -> None:
    """A line of megabytes, or as much in many lines, passes below the limit and not above it."""
    size = 4 * 2**20
    line = b"event: output\nid: 1\ndata: " + b"x" * size + b"\n\n"
    many = b"event: output\nid: 1\n" + b"data: y\n" * (size // 8) + b"\n"
    for body in (line, many):
        chunks = [body[i : i + 1000] for i in range(0, len(body), 1000)]
        for limit, expected in ((8 * 2**20, 1), (2**20, 0)):
            parser = Parser(limit)
            events = [event for chunk in chunks for event in parser.feed(chunk)]
            assert len(events) == expected
            assert parser.overflowed is not bool(expected)


def test_endless_comments_are_too_large() -> None:
    """A comment that does not end fills no memory."""
    parser = Parser(1000)
    for _ in range(100):
        parser.feed(b":" + b"x" * 100)
    assert parser.overflowed


def test_the_time_for_a_long_line_is_linear() -> None:
    """Small chunks of a long line are not copied again and again."""
    took = []
    for size in (2**20, 8 * 2**20):
        parser = Parser(2**30)
        before = time.process_time()
        for _ in range(size // 256):
            parser.feed(b"x" * 256)
        took.append(time.process_time() - before)
    # Eight times the work; quadratic, it would be 64 times.
    assert took[1] < 30 * took[0] + 0.1


# -- What has been seen before -------------------------------------------------------------------


def event(data: str, id: str | None = None, kind: str = "output") -> ServerSentEvent:
    """Return an event."""
    return ServerSentEvent(kind, data, id)


STREAM = [event(f"t{number}", f"9:{number}") for number in range(6)]


@pytest.mark.parametrize("cut", range(7))
@pytest.mark.parametrize("back", range(7))
def test_replays_with_ids(cut: int, back: int) -> None:
    """Whatever part a server replays after a cut anywhere, each event is new once."""
    received = SeenEvents()
    seen = received.new(STREAM[:cut])
    received.reconnected()
    seen += received.new(STREAM[max(cut - back, 0) :])
    received.reconnected()
    seen += received.new(STREAM)
    assert seen == STREAM


@pytest.mark.parametrize("cut", range(7))
def test_replays_without_ids(cut: int) -> None:
    """Without ids, a stream that begins anew is recognised by its content, repetitions and all."""
    stream = [event(text) for text in ("a", "a", "b", "a", "a", "c")]
    received = SeenEvents()
    seen = received.new(stream[:cut])
    for _ in range(2):
        received.reconnected()
        seen += received.new(stream)
    assert seen == stream


def test_events_that_share_an_id() -> None:
    """Of several events with one id, as many are dropped as came before."""
    stream = [event("a", "1"), event("b", "1"), event("c", "1"), event("d", "2")]
    received = SeenEvents()
    seen = received.new(stream[:2])
    received.reconnected()
    seen += received.new(stream)
    assert seen == stream


def test_resumed_without_replay() -> None:
    """What a server goes on with is new, without an id, too."""
    received = SeenEvents()
    received.new([event("a", "1"), event("b", "2")])
    received.reconnected()
    rest = [event("c"), event("d"), event("e", "5")]
    assert received.new(rest) == rest


# -- What a stream that broke off has not given ----------------------------------------------------


@pytest.mark.parametrize(
    ("items", "given", "expected"),
    [
        ([], [], []),
        (["a", "b"], [], [(0, "a"), (1, "b")]),
        (["a", "b", "c"], ["a", "b"], [(2, "c")]),
        (["a", "b"], ["a", "b"], []),
        (["a"], ["a", "b"], []),  # the poll lags behind
        (["Hello wor"], ["Hel", "lo "], [(None, "wor")]),
        (["Hello world"], ["Hello ", "wor"], [(None, "ld")]),
        (["Hel", "lo w", "orld"], ["Hello"], [(None, " world")]),
        (["x", "y", "z"], ["1", "2"], [(2, "z")]),  # nothing fits: the count does
    ],
)
def test_missing(
    items: list[str], given: list[str], expected: list[tuple[int | None, str]]
) -> None:
    """What is missing is told by the items or, where they are cut in another way, by their text."""
    assert missing(items, given) == expected


# -- Data of `error` and `done` --------------------------------------------------------------------


def test_failure_text() -> None:
    """The detail of JSON, or the text as it is."""
    assert failure_text('{"detail": "out of words"}') == "out of words"
    for text in ("plain text", "", '{"x": 1}', '{"detail": 3}', "[1]", "[" * 100_000):
        assert failure_text(text) == text


def test_done_reason() -> None:
    """The reason, if there is one."""
    assert done_reason('{"reason":"canceled"}') == "canceled"
    for text in ("{}", "", "x", '{"reason": 1}', "null"):
        assert done_reason(text) is None


def test_text_of_events() -> None:
    """`str()` is the text of an output, and of nothing else."""
    assert str(event(" a")) == " a"
    assert [str(event("x", kind=kind)) for kind in ("logs", "done", "metric")] == ["", "", ""]
    assert event("a").output == "a"
    assert event("a", kind="logs").output is None
