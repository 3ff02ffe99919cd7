"""Standard output."""

from __future__ import annotations

import errno
import io
import sys

from .outputs import to_json
from .terminal import is_terminal, visible, visible_json


class NotWritten(Exception):
    """An output, or other text, could not be written to standard output."""

    def __init__(self, cause: OSError | None, prediction: str | None = None) -> None:
        super().__init__(cause, prediction)
        self.cause: OSError | None = cause
        """Why; None if it is closed."""
        self.is_broken_pipe: bool = cause is not None and cause.errno == errno.EPIPE
        """Whether the program that read standard output has ended."""
        self.prediction: str | None = prediction
        """ID of the prediction whose output it was."""
        self._reason = "it is closed" if cause is None else cause.strerror or str(cause)

    def __str__(self) -> str:
        if self.prediction is None:
            return f"standard output cannot be written to: {self._reason}"
        return (
            f"the output of prediction {self.prediction} could not be written to standard output"
            f" ({self._reason}). For one hour, `replicate-async predictions get {self.prediction}` shows it"
        )


def prepare() -> None:
    """Set up standard output: characters that it cannot encode are replaced, and incomplete writes are errors."""
    if not isinstance(sys.stdout, io.TextIOWrapper):
        return
    if isinstance(sys.stdout.buffer, io.RawIOBase):
        # As with `PYTHONUNBUFFERED`. `_print` flushes each write anyway.
        sys.stdout = open(  # noqa: SIM115  (it is used to the end of the program)
            sys.stdout.fileno(),
            "w",
            encoding=sys.stdout.encoding,
            errors=sys.stdout.errors,
            closefd=False,
        )
    if sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")


def write(text: str, *, end: str = "\n", prediction: str | None = None) -> None:
    """Write a text to standard output; on a terminal, its control characters are shown.

    Args:
        text: The text.
        end: What follows it.
        prediction: ID of the prediction whose output it is.

    Raises:
        NotWritten: It could not be written.
    """
    _print(visible(text) if is_terminal(sys.stdout) else text, end, prediction)


def _print(text: str, end: str, prediction: str | None) -> None:
    if sys.stdout is None:
        raise NotWritten(None, prediction)
    try:
        try:
            print(text, end=end, flush=True)
        except UnicodeEncodeError:  # from `surrogateescape`, which the POSIX locale has
            encoding = sys.stdout.encoding
            print(text.encode(encoding, "replace").decode(encoding), end=end, flush=True)
    except OSError as error:
        raise NotWritten(error, prediction) from error
    except ValueError as error:  # it was closed
        raise NotWritten(None, prediction) from error


def write_json(value: object, *, prediction: str | None = None) -> None:
    """Write a value as JSON to standard output, on one line.

    Raises:
        NotWritten: It could not be written.
    """
    text = to_json(value, compact=True)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = to_json(value, compact=True, ascii_only=True)
    _print(visible_json(text) if is_terminal(sys.stdout) else text, "\n", prediction)
