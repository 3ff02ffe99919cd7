"""Server-sent events: parses bytes into events, and recognises events that were received before.

The parser follows the event-stream rules of the WHATWG HTML standard, with one exception: the standard drops events
without data, but the API sends `done` and `error` events without data, too (:api:`stream-events`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from .._codec import decode_json
from ..types import ServerSentEvent

_BOM: Final = b"\xef\xbb\xbf"

_WITHOUT_DATA: Final = frozenset({"done", "error"})
"""Types of events that need no data."""

_EVENT_OR_LINE: Final = re.compile(
    # A whole event as the API writes it, else one line. Nothing is skipped between two matches.
    r"event: ([^\n]+)\nid: ([^\n\0]+)\ndata: ([^\n]*(?:\ndata: [^\n]*)*)\n\n|([^\n]*\n)"
)

_RETRY_DIGITS: Final = 15
"""Number of digits of a `retry` field that are read."""


class Parser:
    """Parses the bytes of one connection, in chunks of any size.

    The limit applies to the total length of an event's lines, comments included. After a larger event, `overflowed`
    is set, and no further events are returned.
    """

    def __init__(self, limit: int, last_id: str = "") -> None:
        """Make a parser.

        Args:
            limit: Most bytes in an event.
            last_id: ID of the last event of the connection before.
        """
        self.last_id: str = last_id
        """ID to resume after; empty if there is none."""
        self.retry: int | None = None
        """Milliseconds to wait before reconnecting; None if the server has not set it."""
        self.timed_out: bool = False
        """Whether the server has announced that it closes the connection (:api:`stream-end`)."""
        self.overflowed: bool = False
        """Whether an event was larger than the limit."""
        self._limit = limit
        self._started = False
        """Whether the first line has been parsed, which may begin with a byte order mark."""
        self._after_cr = False
        """Whether the last chunk ended with a CR, to which an LF may belong."""
        self._pieces: list[bytes] = []
        """Pieces of the last line, which is incomplete."""
        self._pieces_size = 0
        # The event that is incomplete:
        self._size = 0
        self._kind = ""
        self._data: list[str] = []
        self._retry: int | None = None
        self._id = ""

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Return the events that are complete with *chunk*."""
        events: list[ServerSentEvent] = []
        if self._after_cr and chunk:
            # The second half of a CRLF: the CR has already ended the line.
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        has_cr = b"\r" in chunk
        end = chunk.rfind(b"\n") + 1
        if has_cr:
            end = max(end, chunk.rfind(b"\r") + 1)
            self._after_cr = chunk.endswith(b"\r")
        if not end:
            self._keep(chunk)
            return events
        lines = chunk[:end]
        if self._pieces:
            lines = b"".join((*self._pieces, lines))
            self._pieces.clear()
            self._pieces_size = 0
        if not self._started:
            self._started = True
            lines = lines.removeprefix(_BOM)
        if self.overflowed:
            return events
        if has_cr or self._size + len(lines) > self._limit:
            self._parse_lines(lines, events)
        elif "\ufffd" in (text := lines.decode("utf-8", "replace")):
            self._parse_lines(lines, events)  # the text does not show how many bytes each line has
        else:
            self._parse_text(text, events)
        if end < len(chunk):
            self._keep(chunk[end:])
        return events

    def _keep(self, piece: bytes) -> None:
        """Keep a piece of a line until the line is complete."""
        if piece and not self.overflowed:
            self._pieces.append(piece)
            self._pieces_size += len(piece)
            mark = 0 if self._started else len(_BOM)  # which does not count
            if self._size + self._pieces_size > self._limit + mark:
                self._overflow()

    def _overflow(self) -> None:
        self.overflowed = True
        self._pieces.clear()
        self._data.clear()

    def _parse_lines(self, lines: bytes, events: list[ServerSentEvent]) -> None:
        """Parse complete lines one by one."""
        # Unlike `str.splitlines`, `bytes.splitlines` splits at LF, CR and CRLF only.
        for line in lines.splitlines():
            if self._size + len(line) > self._limit:
                self._overflow()
                return
            self._parse_line(line.decode("utf-8", "replace"), len(line), events)

    def _parse_text(self, text: str, events: list[ServerSentEvent]) -> None:
        """Parse complete lines that end with LF and are within the limit, whole events at a time if possible."""
        for kind, event_id, data, line in _EVENT_OR_LINE.findall(text):
            if not kind:
                self._parse_line(line[:-1], len(line.encode()) - 1, events)
                continue
            if "\n" in data:
                data = data.replace("\ndata: ", "\n")
            if self._size:  # there are earlier lines of the same event
                self._kind, self._id = kind, event_id
                self._data.append(data)
                self._dispatch(events)
            else:
                events.append(ServerSentEvent(kind, data, event_id))
                self._id = self.last_id = event_id

    def _parse_line(self, line: str, size: int, events: list[ServerSentEvent]) -> None:
        if not line:
            self._dispatch(events)
            return
        self._size += size
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
            case "event":
                self._kind = value
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isascii() and value.isdigit():
                self.retry = self._retry = int(value[:_RETRY_DIGITS])
            case "":
                self.timed_out = self.timed_out or line.startswith(":408")
            case _:
                pass

    def _dispatch(self, events: list[ServerSentEvent]) -> None:
        """Add the event whose last line has been parsed."""
        self.last_id = self._id
        if self._data or self._kind in _WITHOUT_DATA:
            kind = self._kind or "message"
            events.append(
                ServerSentEvent(kind, "\n".join(self._data), self._id or None, self._retry)
            )
        self._kind = ""
        self._data.clear()
        self._retry = None
        self._size = 0


class SeenEvents:
    """Recognises the events of a stream that an earlier connection has already received.

    A server that resumes a stream may repeat any of its events. An event is recognised by its ID; if several events
    have the same ID, by their number. An event without an ID is recognised by its content, as long as all such events
    since the beginning are repeated.
    """

    def __init__(self) -> None:
        self._before: Counter[str] = Counter()
        """For each ID, the number of events that earlier connections have received."""
        self._first_ids: list[str | None] = []
        """IDs of the events of the first connection."""
        self._counts: Counter[str] = Counter()
        """For each ID, the number of events that this connection has received; not for the first one."""
        self._without_id: list[tuple[str, str]] = []
        """Type and data of all events without an ID."""
        self._repeated: int | None = None
        """Number of them that this connection has repeated; None since it has received another one."""
        self._reconnected = False

    def reconnected(self) -> None:
        """Note that the following events come from a new connection."""
        self._counts.update(each for each in self._first_ids if each is not None)
        self._before |= self._counts
        self._first_ids.clear()
        self._counts.clear()
        self._repeated = 0
        self._reconnected = True

    def new(self, events: list[ServerSentEvent]) -> list[ServerSentEvent]:
        """Return the events that have not been received before."""
        if self._reconnected:
            return [event for event in events if self._is_new(event)]
        # Most streams have one connection only, so that counting is left until another one needs it.
        ids = [event.id for event in events]
        if None in ids:
            self._without_id += [(event.event, event.data) for event in events if event.id is None]
        self._first_ids += ids
        return events

    def _is_new(self, event: ServerSentEvent) -> bool:
        if event.id is not None:
            self._counts[event.id] += 1
            return self._counts[event.id] > self._before[event.id]
        index = self._repeated
        content = event.event, event.data
        if (
            index is not None
            and index < len(self._without_id)
            and self._without_id[index] == content
        ):
            self._repeated = index + 1
            return False
        self._repeated = None
        self._without_id.append(content)
        return True


def failure_text(data: str) -> str:
    """Return the error text in the data of an `error` event: the detail, or the data as they are."""
    detail = _object(data).get("detail")
    return detail if isinstance(detail, str) and detail else data


def done_reason(data: str) -> str | None:
    """Return the reason in the data of a `done` event: `"canceled"`, `"error"`; None on success."""
    reason = _object(data).get("reason")
    return reason if isinstance(reason, str) else None


def _object(data: str) -> dict[str, object]:
    """Return a JSON object; an empty one if the data are anything else."""
    try:
        decoded = decode_json(data)
    except ValueError:
        return {}
    return decoded if isinstance(decoded, dict) else {}


def missing(items: Sequence[str], texts: Sequence[str]) -> list[tuple[int | None, str]]:
    """Return the part of an output that a stream has not yielded before it broke off.

    Args:
        items: The output so far, as the text of each item.
        texts: The texts of the `output` events that have been yielded.

    Returns:
        The index and the text of each missing item. The index is None for a text that is the rest of all items,
        if the items are not the same pieces as the events.
    """
    yielded = len(texts)
    rest: list[tuple[int | None, str]] = []
    rest += enumerate(items[yielded:], yielded)
    if list(items[:yielded]) == list(texts):
        return rest
    whole, before = "".join(items), "".join(texts)
    if whole.startswith(before):
        return [(None, whole[len(before) :])] if len(whole) > len(before) else []
    if before.startswith(whole):
        return []  # the polled output is older than what the stream has yielded
    return rest
