"""Server-sent events: bytes to events, and which of them have been seen before (:api:`stream-events`).

Pure: the parser follows the event-stream rules of the WHATWG HTML standard to the letter, with one exception.
An event without data is dropped there, but `done` and `error` mean something without (:api:`stream-events`).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

from ..types import ServerSentEvent

_BOM: Final = b"\xef\xbb\xbf"


_TELLING: Final = frozenset({"done", "error"})
"""Events that count without data, too."""


_PLAIN: Final = re.compile(
    # A whole event as the API writes it, in one match; else one line. Nothing is skipped between matches.
    r"event: ([^\n]+)\nid: ([^\n\0]+)\ndata: ([^\n]*(?:\ndata: [^\n]*)*)\n\n|([^\n]*\n)"
)


_LONGEST_RETRY: Final = 15
"""Digits of a `retry` field that are read; more are for ever."""


class Parser:
    """Takes the bytes of one connection, cut anywhere, and gives the events that are complete.

    An event exceeds the limit if the lines of its block do, comments included. From then on `overflowed`
    is set and nothing more comes; the events before it have been given.
    """

    def __init__(self, limit: int) -> None:
        self.last_id: str = ""
        """The id to resume after; empty if there is none."""
        self.retry: int | None = None
        """Milliseconds to wait before connecting anew, if the server has said so."""
        self.timed_out: bool = False
        """Whether the server has said that it hangs up (:api:`stream-end`)."""
        self.overflowed: bool = False
        """Whether an event was larger than the limit."""
        self._limit = limit
        self._begun = False
        self._after_cr = False
        self._pieces: list[bytes] = []  # of a line whose end has not come
        self._pending = 0
        # Of the block whose end has not come:
        self._size = 0
        self._kind = ""
        self._data: list[str] = []
        self._retry: int | None = None
        self._id = ""

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """Return the events that *chunk* completes."""
        events: list[ServerSentEvent] = []
        if self._after_cr and chunk:
            # The other half of a CRLF; the line has ended before.
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        with_cr = b"\r" in chunk
        cut = chunk.rfind(b"\n") + 1
        if with_cr:
            cut = max(cut, chunk.rfind(b"\r") + 1)
            self._after_cr = chunk.endswith(b"\r")
        if not cut:
            self._hold(chunk)
            return events
        lines = chunk[:cut]
        if self._pieces:
            lines = b"".join((*self._pieces, lines))
            self._pieces.clear()
            self._pending = 0
        if not self._begun:
            self._begun = True
            lines = lines.removeprefix(_BOM)
        if self.overflowed:
            return events
        if with_cr or self._size + len(lines) > self._limit:
            self._slowly(lines, events)
        elif "\ufffd" in (text := lines.decode("utf-8", "replace")):
            self._slowly(lines, events)  # how long its lines were cannot be told any more
        else:
            self._quickly(text, events)
        if cut < len(chunk):
            self._hold(chunk[cut:])
        return events

    def _hold(self, piece: bytes) -> None:
        """Keep the beginning of a line."""
        if piece and not self.overflowed:
            self._pieces.append(piece)
            self._pending += len(piece)
            if self._size + self._pending > self._limit:
                self._overflow()

    def _overflow(self) -> None:
        self.overflowed = True
        self._pieces.clear()
        self._data.clear()

    def _slowly(self, lines: bytes, events: list[ServerSentEvent]) -> None:
        # Unlike that of str, the method of bytes knows no other line ends than LF, CR and CRLF.
        for line in lines.splitlines():
            if self._size + len(line) > self._limit:
                self._overflow()
                return
            self._line(line.decode("utf-8", "replace"), len(line), events)

    def _quickly(self, text: str, events: list[ServerSentEvent]) -> None:
        """Take complete lines that end in LF and together stay within the limit."""
        add = events.append
        inside = self._size > 0
        for kind, name, data, line in _PLAIN.findall(text):
            if not kind:
                self._line(line[:-1], len(line.encode()) - 1, events)
                inside = self._size > 0
                continue
            if "\n" in data:
                data = data.replace("\ndata: ", "\n")
            if inside:  # lines of the same block came before
                self._kind, self._id = kind, name
                self._data.append(data)
                self._dispatch(events)
                inside = False
            else:
                add(ServerSentEvent(kind, data, name))
                self._id = self.last_id = name

    def _line(self, line: str, size: int, events: list[ServerSentEvent]) -> None:
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
                self.retry = self._retry = int(value[:_LONGEST_RETRY])
            case "":
                self.timed_out = self.timed_out or line.startswith(":408")
            case _:
                pass

    def _dispatch(self, events: list[ServerSentEvent]) -> None:
        self.last_id = self._id
        if self._data or self._kind in _TELLING:
            kind = self._kind or "message"
            events.append(
                ServerSentEvent(kind, "\n".join(self._data), self._id or None, self._retry)
            )
        self._kind = ""
        self._data.clear()
        self._retry = None
        self._size = 0


class Position:
    """What has been seen of a stream over all of its connections.

    A server that is asked to resume may replay what it likes: an event is recognised by its id or, where
    several have the same, by how many of them came; without an id by its content, from the beginning on.
    """

    def __init__(self) -> None:
        self.last_id: str = ""
        """What `Last-Event-ID` has to say; empty: nothing."""
        self._before: Counter[str] = Counter()
        self._ids: list[str | None] = []  # of the first connection
        self._counts: Counter[str] = Counter()  # of a later one
        self._nameless: list[tuple[str, str]] = []
        self._replayed: int | None = None
        self._again = False

    def reconnected(self) -> None:
        """Note that what comes next may have come before."""
        self._counts.update(name for name in self._ids if name is not None)
        self._before |= self._counts
        self._ids.clear()
        self._counts.clear()
        self._replayed = 0
        self._again = True

    def fresh(self, events: list[ServerSentEvent]) -> list[ServerSentEvent]:
        """Return the events that have not been seen before."""
        if self._again:
            return [event for event in events if self._is_fresh(event)]
        ids = [event.id for event in events]
        if None in ids:
            self._nameless += [(event.event, event.data) for event in events if event.id is None]
        self._ids += ids
        return events

    def _is_fresh(self, event: ServerSentEvent) -> bool:
        name = event.id
        if name is not None:
            self._counts[name] += 1
            return self._counts[name] > self._before[name]
        replayed = self._replayed
        content = event.event, event.data
        if (
            replayed is not None
            and replayed < len(self._nameless)
            and self._nameless[replayed] == content
        ):
            self._replayed = replayed + 1
            return False
        self._replayed = None
        self._nameless.append(content)
        return True


def failure_text(data: str) -> str:
    """Return what the data of an `error` event say: the detail, or the text as it is."""
    said = _object(data).get("detail")
    return said if isinstance(said, str) and said else data


def done_reason(data: str) -> str | None:
    """Return the reason in the data of a `done` event: `"canceled"`, `"error"`; None on success."""
    said = _object(data).get("reason")
    return said if isinstance(said, str) else None


def _object(data: str) -> dict[str, object]:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def missing(items: Sequence[str], texts: Sequence[str]) -> list[tuple[int | None, str]]:
    """Return what a stream that broke off has not yet given, as the number of an item and its text.

    Args:
        items: The whole output so far, one text for each item.
        texts: The texts of the `output` events that have been given.

    A text without a number is the rest of all items together, where their bounds are not those of the
    events.
    """
    given = len(texts)
    rest: list[tuple[int | None, str]] = []
    rest += enumerate(items[given:], given)
    if list(items[:given]) == list(texts):
        return rest
    whole, before = "".join(items), "".join(texts)
    if whole.startswith(before):
        return [(None, whole[len(before) :])] if len(whole) > len(before) else []
    if before.startswith(whole):
        return []  # what is polled lags behind what was streamed
    return rest
