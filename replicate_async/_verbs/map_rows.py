"""The rows of a journal, checked: a file may be damaged, or changed by hand. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, cast, get_args

import attrs

from .._codec import decode_json

State: TypeAlias = Literal["new", "intended", "running", "ended", "saved"]

_SENT: Final = re.compile(r"[^+]+(\+[0-9]{1,9})?")

_LATEST: Final = 253_402_300_799.0
"""The end of the year 9999."""

_MAX_ATTEMPTS: Final = 2**31


@attrs.frozen
class Entry:
    """The state of one input in the journal."""

    state: State = "new"
    """`new`: no prediction was created; `intended`: one may have been; `running`: its ID is known; `ended`: its
    record is known; `saved`: its files are on the disk, too."""
    attempt: int = 0
    """Number of predictions that failed before this one."""
    sent: str | None = None
    """Hash of the input as it was sent."""
    intended: float = 0.0
    """When the create was sent, in seconds since 1970."""
    prediction: str | None = None
    """ID of the prediction."""
    record: dict[str, Any] | None = None
    """The prediction as it ended."""
    files: Mapping[str, int | None] = attrs.field(factory=dict)
    """Names of the saved files, with their sizes; None if a size is not known."""
    timeout: float | None = None
    """The timeout in seconds, if the prediction was cancelled because it was over."""


def entry_of(columns: Sequence[object]) -> Entry:
    """Return the entry for the columns of a row: state, attempt, sent, intended, prediction, record, files, seconds.

    Raises:
        ValueError: The row is damaged.
    """
    state, attempt, sent, intended, prediction, record, files, seconds = columns
    if state not in get_args(State):
        raise ValueError(f"its state is {_cut(state)}")
    if not isinstance(attempt, int) or not 0 <= attempt < _MAX_ATTEMPTS:
        raise ValueError(f"its attempt is {_cut(attempt)}")
    known = None if record is None else _record(record)
    if known is None and state in ("ended", "saved"):
        raise ValueError("it has no record")
    return Entry(
        cast("State", state),
        attempt,
        check_sent(sent) if sent is not None or state == "intended" else None,
        check_time(intended) if intended is not None or state == "intended" else 0.0,
        _id(prediction) if prediction is not None or state == "running" else None,
        known,
        {} if files is None or files == "" else _files(files),
        None if seconds is None else _number(seconds, "timeout"),
    )


def check_sent(sent: object) -> str:
    """Return what was sent, as the journal notes it.

    Raises:
        ValueError: It is damaged.
    """
    if not isinstance(sent, str) or not _SENT.fullmatch(sent):
        raise ValueError(f"the hash of what was sent is {_cut(sent)}")
    return sent


def check_time(seconds: object) -> float:
    """Return a time in seconds since 1970.

    Raises:
        ValueError: It is damaged.
    """
    return _number(seconds, "time")


def _number(value: object, name: str) -> float:
    if isinstance(value, (int, float)):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if 0 <= number <= _LATEST:
            return number
    raise ValueError(f"its {name} is {_cut(value)}")


def _id(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"its prediction is {_cut(value)}")
    return value


def _record(text: object) -> dict[str, Any]:
    record = _decoded(text, "record")
    if not isinstance(record, dict):
        raise ValueError(f"its record is {_cut(text)}")
    _id(record.get("id"))
    return record


def _files(text: object) -> dict[str, int | None]:
    files = _decoded(text, "list of files")
    if isinstance(files, list) and all(isinstance(name, str) for name in files):
        files = dict.fromkeys(files)  # earlier versions noted the names alone
    if not isinstance(files, dict) or not all(
        _is_name(name) and (size is None or (type(size) is int and size >= 0))
        for name, size in files.items()
    ):
        raise ValueError(f"its list of files is {_cut(text)}")
    return files


def _is_name(name: str) -> bool:
    return name not in ("", ".", "..") and not re.search(r"[/\\\0]", name)


def _decoded(text: object, name: str) -> Any:
    if not isinstance(text, str):
        raise ValueError(f"its {name} is {_cut(text)}")
    try:
        return decode_json(text)
    except ValueError as error:
        raise ValueError(f"its {name} is not readable ({error})") from None


def _cut(value: object) -> str:
    if isinstance(value, (str, bytes)):
        return repr(value[:60])
    return repr(value) if isinstance(value, float) or value is None else type(value).__name__
