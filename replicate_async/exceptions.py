"""Everything that this package raises.

```text
ReplicateException
├── ReplicateError              an answer of the API with an error status
│   ├── BadRequestError                 400
│   ├── AuthenticationError             401
│   ├── PaymentRequiredError            402
│   ├── PermissionDeniedError           403
│   ├── NotFoundError                   404
│   ├── ConflictError                   409
│   ├── PayloadTooLargeError            413
│   ├── ValidationError                 422
│   ├── RateLimitError                  429
│   └── ServerError                     500 and above
├── ModelError                  a prediction or training that ended without a result
│   ├── PredictionFailed
│   │   └── StreamError                 with the text so far
│   ├── PredictionCanceled
│   ├── PredictionAborted
│   ├── RunTimeout
│   ├── ContactLost
│   ├── OutputNotSaved
│   └── OutputRemoved                   it came too late
├── TransportError              no usable answer
│   ├── ConnectError                    nothing was sent
│   ├── TransportTimeout                the server was silent for too long
│   ├── ConnectionLost                  the connection broke
│   ├── UnreadableAnswer                the answer is not what the API sends
│   ├── AnswerTooLarge                  the answer exceeds what may be held in memory
│   ├── RefusedRedirect                 a redirect that leads nowhere or away
│   └── AmbiguousCreateError            a create that may have happened
├── FileOutputError             a file that cannot be had
│   ├── FileExpired
│   ├── IncompleteFile
│   ├── FileTooLarge
│   └── FileNotSaved                    (also OSError)
├── ArgumentError               (also ValueError)
│   ├── MissingToken
│   ├── InvalidReference
│   └── InvalidSignature
├── ArgumentTypeError           (also TypeError)
├── JournalError                the journal of a fan-out cannot be used
├── ClientClosed                (also RuntimeError)
├── StreamInUse                 (also RuntimeError)
├── LoopClosed                  (also RuntimeError; only the sync facade)
└── WouldDeadlock               (also RuntimeError; only the sync facade)
```

Each class makes its own message from the facts that it is given, and keeps them as attributes. All of
them pickle, with their prediction.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from .types import Job

__all__ = (
    "AmbiguousCreateError",
    "AnswerTooLarge",
    "ArgumentError",
    "ArgumentTypeError",
    "AuthenticationError",
    "BadRequestError",
    "ClientClosed",
    "ConflictError",
    "ConnectError",
    "ConnectionLost",
    "ContactLost",
    "FileExpired",
    "FileNotSaved",
    "FileOutputError",
    "FileTooLarge",
    "IncompleteFile",
    "InvalidReference",
    "InvalidSignature",
    "JournalError",
    "LoopClosed",
    "MissingToken",
    "ModelError",
    "NotFoundError",
    "OutputNotSaved",
    "OutputRemoved",
    "PayloadTooLargeError",
    "PaymentRequiredError",
    "PermissionDeniedError",
    "PredictionAborted",
    "PredictionCanceled",
    "PredictionFailed",
    "RateLimitError",
    "RefusedRedirect",
    "ReplicateError",
    "ReplicateException",
    "RunTimeout",
    "ServerError",
    "StreamError",
    "StreamInUse",
    "TransportError",
    "TransportTimeout",
    "UnreadableAnswer",
    "ValidationError",
    "WouldDeadlock",
)


def _restore(cls: type[ReplicateException], message: str, facts: dict[str, Any]) -> Exception:
    error = cls.__new__(cls, message)
    Exception.__init__(error, message)
    for name, fact in facts.items():
        setattr(error, name, fact)
    return error


class ReplicateException(Exception):
    """The root of everything that this package raises."""

    def __reduce__(self) -> tuple[Any, ...]:
        facts = {k: v for k, v in self.__dict__.items() if k != "__notes__"}
        if isinstance(self, OSError):
            facts["errno"] = self.errno  # it is in no __dict__
        return _restore, (type(self), str(self), facts)


# -- Answers of the API ------------------------------------------------------------------------


class ReplicateError(ReplicateException):
    """The API answered with an error status (:api:`errors`).

    `status` selects the subclass; `ReplicateError` itself stands for the rest.
    """

    method: str
    """The HTTP method of the request."""
    url: str
    """Where the request went, without its query."""
    status: int
    """The HTTP status."""
    title: str | None
    """The short name of the problem, if the body had one."""
    detail: str | None
    """The explanation for people; the beginning of the body where that was not JSON."""
    type: str | None
    """The URI of the problem type, if the body had one."""
    instance: str | None
    """The URI of this occurrence, if the body had one."""
    invalid_fields: Sequence[Mapping[str, Any]]
    """What is wrong with which field: `type`, `field`, `description` (or `pointer`, `detail`)."""
    retry_after: float | None
    """How many seconds the server asks to wait, from the header or the body."""
    headers: Mapping[str, str]
    """The headers of the answer, with names in lower case."""

    def __init__(
        self,
        method: str,
        url: str,
        status: int,
        *,
        title: str | None = None,
        detail: str | None = None,
        type: str | None = None,
        instance: str | None = None,
        invalid_fields: Sequence[Mapping[str, Any]] = (),
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.method = method
        self.url = url
        self.status = status
        self.title = title
        self.detail = detail
        self.type = type
        self.instance = instance
        self.invalid_fields = tuple(invalid_fields)
        self.retry_after = retry_after
        self.headers = dict(headers or {})
        said = ": ".join(part.strip() for part in (title, detail) if part and part.strip())
        message = f"{method} {url} was answered with {status}"
        if said:
            message += f": {said}"
        if retry_after is not None:
            message += f" (the server asks to wait {retry_after:g} s)"
        if hint := self._hint():
            message += f"\n{hint}"
        super().__init__(message)

    def _hint(self) -> str | None:
        return None

    @staticmethod
    def class_for(status: int) -> builtins.type[ReplicateError]:
        """Return the class for an HTTP status."""
        if status >= 500:
            return ServerError
        return _BY_STATUS.get(status, ReplicateError)


class BadRequestError(ReplicateError):
    """400: the request is malformed or fails the API's validation."""


class AuthenticationError(ReplicateError):
    """401: the token is missing, wrong or expired."""

    def _hint(self) -> str | None:
        return "Check REPLICATE_API_TOKEN, or the `api_token` given to Client."


class PaymentRequiredError(ReplicateError):
    """402: the account has no credit or no billing."""


class PermissionDeniedError(ReplicateError):
    """403: the account may not do this."""


class NotFoundError(ReplicateError):
    """404: there is no such object, or it is not visible to this account."""


class ConflictError(ReplicateError):
    """409: the name is taken."""


class PayloadTooLargeError(ReplicateError):
    """413: the file is larger than the API takes."""


class ValidationError(ReplicateError):
    """422: the input or another part of the body is invalid; see `invalid_fields`."""


class RateLimitError(ReplicateError):
    """429: too many requests; see `retry_after`."""


class ServerError(ReplicateError):
    """500 and above: the server failed."""


_BY_STATUS: Mapping[int, type[ReplicateError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: PaymentRequiredError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: PayloadTooLargeError,
    422: ValidationError,
    429: RateLimitError,
}


# -- Predictions without a result --------------------------------------------------------------


class ModelError(ReplicateException):
    """A prediction or training ended without a result, or not in time."""

    prediction: Job
    """What is known of it, with its logs and its id."""
    code: str | None
    """The code in the error text, such as `"E1001"` (:api:`prediction-errors`)."""
    kind: str
    """What kind of failure it is: `"content_policy"`, `"invalid_input"`, `"capacity"`,
    `"out_of_memory"`, `"interrupted"`, `"timeout"` or `"unknown"`."""
    retryable: bool
    """Whether the same may succeed if it is run, and paid for, again. Never a guess."""

    def __init__(
        self,
        prediction: Job,
        fact: str,
        advice: str = "",
        *,
        code: str | None = None,
        kind: str = "unknown",
        retryable: bool = False,
    ) -> None:
        self.prediction = prediction
        self.code = code
        self.kind = kind
        self.retryable = retryable
        error = prediction.error
        message = f"{_described(prediction)} {fact}"
        if error:
            message += f": {error.strip()}"
        if advice:
            message += f"\n{advice}"
        if web := prediction.urls.web:
            message += f"\n{web}"
        super().__init__(message)


def _described(prediction: Job) -> str:
    kind = type(prediction).__name__
    model = f" of {prediction.model}" if prediction.model else ""
    return f"{kind} {prediction.id}{model}"


class PredictionFailed(ModelError):
    """The model failed; its error text is in the message."""

    def __init__(
        self,
        prediction: Job,
        *,
        code: str | None = None,
        kind: str = "unknown",
        retryable: bool = False,
    ) -> None:
        super().__init__(prediction, "failed", code=code, kind=kind, retryable=retryable)


class StreamError(PredictionFailed):
    """The model failed while its output was streamed."""

    text: str
    """The text of all output that had come."""

    def __init__(
        self,
        prediction: Job,
        said: str,
        text: str,
        *,
        code: str | None = None,
        kind: str = "unknown",
        retryable: bool = False,
    ) -> None:
        self.text = text
        # The prediction may not tell of it yet, or no more.
        fact = "failed" if prediction.error or not said else f"failed: {said.strip()}"
        ModelError.__init__(self, prediction, fact, code=code, kind=kind, retryable=retryable)


class PredictionCanceled(ModelError):
    """Somebody cancelled the prediction, or its deadline passed while it ran."""

    def __init__(self, prediction: Job) -> None:
        super().__init__(prediction, "was canceled")


class PredictionAborted(ModelError):
    """The prediction ended before it started, and is not charged."""

    def __init__(self, prediction: Job) -> None:
        super().__init__(prediction, "was aborted before it started (not charged)")


class RunTimeout(ModelError, TimeoutError):
    """The caller's time for a prediction was over before it ended."""

    timeout: float
    """The time that was given, in seconds."""

    def __init__(self, prediction: Job, timeout: float, *, canceled: bool = False) -> None:
        self.timeout = timeout
        super().__init__(
            prediction,
            f"did not end within {timeout:g} s (last status: {prediction.status})",
            "It has been cancelled."
            if canceled
            else f"It may still be running: predictions.wait({prediction.id!r}) picks it up again.",
        )


class ContactLost(ModelError):
    """A prediction could not be followed to its end; it may still be running."""

    def __init__(self, prediction: Job, reason: str) -> None:
        super().__init__(
            prediction,
            f"could not be followed any further ({reason})",
            f"It may still be running: predictions.wait({prediction.id!r}) picks it up again.",
        )


class OutputNotSaved(ModelError):
    """A prediction succeeded, but `save_to` could not put all of its files on the disk.

    Its output is in `prediction.output`, and can be had for an hour (:api:`retention`). Files that
    were saved know their `path`. The cause is the first failure.
    """

    failures: Sequence[ReplicateException]
    """What went wrong, for each file that is missing."""

    def __init__(
        self, prediction: Job, reason: str, failures: Sequence[ReplicateException] = ()
    ) -> None:
        self.failures = tuple(failures)
        super().__init__(
            prediction,
            f"succeeded, but its files could not be saved ({reason})",
            "They can be had from its output for an hour.",
        )


class OutputRemoved(ModelError):
    """The prediction succeeded, but its output has been deleted since: that is done after one hour."""

    def __init__(self, prediction: Job) -> None:
        super().__init__(
            prediction,
            "succeeded, but its output has been deleted, as it is after one hour",
            "Run it again if you need it: it will be paid for again.",
            retryable=True,
        )


# -- No usable answer --------------------------------------------------------------------------


class TransportError(ReplicateException):
    """A request got no usable answer."""

    method: str
    """The HTTP method of the request."""
    url: str
    """Where the request went, without its query."""

    def __init__(self, method: str, url: str, fact: str) -> None:
        self.method = method
        self.url = url
        super().__init__(f"{method} {url}: {fact}")


class ConnectError(TransportError):
    """No connection could be made; nothing was sent, so nothing was billed."""

    def __init__(self, method: str, url: str, reason: str) -> None:
        super().__init__(method, url, f"could not connect, nothing was sent ({reason})")


class TransportTimeout(TransportError, TimeoutError):
    """The server was silent, or the answer dragged on, for longer than the timeouts allow."""

    def __init__(self, method: str, url: str, reason: str) -> None:
        super().__init__(method, url, f"timed out ({reason})")


class ConnectionLost(TransportError):
    """The connection broke after the request, or a part of it, had been sent."""

    def __init__(self, method: str, url: str, reason: str) -> None:
        super().__init__(method, url, f"the connection was lost ({reason})")


class UnreadableAnswer(TransportError):
    """The answer is not what the API sends: not JSON, or JSON of another shape."""

    status: int
    """The HTTP status of the answer; 0 if it had none that could be read."""
    body: str
    """The beginning of the answer's body."""

    def __init__(self, method: str, url: str, status: int, body: bytes | str, reason: str) -> None:
        self.status = status
        text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
        self.body = text[:500]
        begins = f"; it begins with {text[:200]!r}" if text else "; it is empty"
        answer = f"the answer ({status})" if status else "the answer"
        super().__init__(method, url, f"{answer} cannot be read: {reason}{begins}")


class AnswerTooLarge(TransportError):
    """The answer exceeds what may be held in memory."""

    limit: int
    """The limit, in bytes after decompression."""

    def __init__(
        self, method: str, url: str, limit: int, what: Literal["answer", "event"] = "answer"
    ) -> None:
        self.limit = limit
        super().__init__(
            method,
            url,
            f"the {what} is larger than {limit} bytes; raise it with Client(limits=Limits({what}=...))"
            " if you expect that",
        )


class RefusedRedirect(TransportError):
    """A redirect was not followed."""

    location: str
    """Where it would have led."""

    def __init__(self, method: str, url: str, location: str, reason: str) -> None:
        self.location = location
        super().__init__(method, url, f"redirect to {location!r} not followed ({reason})")


class AmbiguousCreateError(TransportError):
    """A create got no answer, and may have happened: look before you create again."""

    reference: str
    """What was to be created, such as `"acme/greeter"`."""
    began: datetime
    """When it was sent, by the clock of this machine."""

    def __init__(self, method: str, url: str, reference: str, reason: str, began: datetime) -> None:
        self.reference = reference
        self.began = began
        since = (began - timedelta(seconds=5)).isoformat(timespec="seconds")
        super().__init__(
            method,
            url,
            f"the request was sent, but no usable answer came ({reason}). {reference} may have been"
            " created, and may be billed; the list of the account does not show it yet. Before you"
            f" create it again, look at predictions.list(created_after={since!r})",
        )


# -- Files -------------------------------------------------------------------------------------


class FileOutputError(ReplicateException):
    """A file that a model made cannot be had."""

    url: str
    """Where the file is, or was; a data URI is shortened."""

    def __init__(self, url: str, fact: str) -> None:
        self.url = url if len(url) <= 200 else url[:100] + "…"
        super().__init__(f"{self.url}: {fact}")


class FileExpired(FileOutputError):
    """The file is gone: output files are kept for one hour (:api:`retention`)."""

    status: int
    """The HTTP status, 404 or 410."""

    def __init__(self, url: str, status: int, *, signed: bool = False) -> None:
        self.status = status
        super().__init__(
            url,
            f"there is no such file ({status}). It was deleted or has expired, or the signature does"
            " not hold"
            if signed
            else f"the file is gone ({status}). Output files of predictions made through the API are"
            " deleted after one hour: save them before, as run(save_to=...) does, or run the model"
            " again",
        )


class IncompleteFile(FileOutputError):
    """The download ended before the file was complete."""

    def __init__(self, url: str, received: int, expected: int | None) -> None:
        of = f" of {expected}" if expected is not None else ""
        super().__init__(url, f"the download broke off after {received}{of} bytes")


class FileTooLarge(FileOutputError):
    """The file is larger than what may be held in memory."""

    limit: int
    """The limit, in bytes."""

    def __init__(self, url: str, limit: int, size: int | None = None) -> None:
        self.limit = limit
        has = f"more than {limit}" if size is None else str(size)
        super().__init__(
            url,
            f"the file has {has} bytes, and {limit} may be read into memory: save() it or iterate"
            " over it, or raise the limit with Client(limits=Limits(file=...))",
        )


class FileNotSaved(FileOutputError, OSError):
    """The file could not be written to the disk; nothing of it was left there."""

    path: str
    """Where it was to be."""

    def __init__(self, url: str, path: str, error: Exception) -> None:
        self.path = path
        super().__init__(url, f"it could not be saved as {path!r} ({error})")
        self.errno = getattr(error, "errno", None)


# -- Arguments and state -----------------------------------------------------------------------


class ArgumentError(ReplicateException, ValueError):
    """An argument has an impossible value; nothing was sent."""

    argument: str
    """The name of the argument."""

    def __init__(self, argument: str, fact: str) -> None:
        self.argument = argument
        super().__init__(f"{argument}: {fact}")


class ArgumentTypeError(ReplicateException, TypeError):
    """An argument has a type that cannot be used; nothing was sent."""

    argument: str
    """The name of the argument."""

    def __init__(self, argument: str, fact: str) -> None:
        self.argument = argument
        super().__init__(f"{argument}: {fact}")


class MissingToken(ArgumentError):
    """There is no API token; nothing was sent."""

    def __init__(self) -> None:
        super().__init__(
            "api_token",
            "there is no API token. Set the environment variable REPLICATE_API_TOKEN, or pass"
            " Client(api_token=...). Tokens are made at https://replicate.com/account/api-tokens;"
            " to try things without one, see replicate_async.testing",
        )


class InvalidReference(ArgumentError):
    """A string does not refer to a model, version or deployment; nothing was sent."""

    def __init__(self, argument: str, value: str, expected: str) -> None:
        super().__init__(argument, f"{value!r} is not {expected}")


class InvalidSignature(ArgumentError):
    """A webhook was not signed with this secret, or too long ago: do not trust it."""

    def __init__(self, reason: str) -> None:
        super().__init__("webhook", f"the signature does not hold: {reason}")


class JournalError(ReplicateException):
    """The journal of a fan-out cannot be used; no further prediction is created."""

    kind: str
    """`"in_use"`: another process has it; `"mismatch"`: it is of another model or of other inputs;
    `"unreadable"`: it is no journal; `"failed"`: it cannot be written."""
    path: str
    """Where it is."""

    def __init__(self, kind: str, path: str, fact: str) -> None:
        self.kind = kind
        self.path = path
        super().__init__(f"journal {path}: {fact}")


class ClientClosed(ReplicateException, RuntimeError):
    """The client was used after it had been closed."""

    def __init__(self) -> None:
        super().__init__("this client is closed; make a new one")


class StreamInUse(ReplicateException, RuntimeError):
    """Two tasks wait for the next item of one stream, which has but one reader."""

    def __init__(self) -> None:
        super().__init__(
            "another task is waiting for the next item of this stream; a stream has one reader"
        )


class LoopClosed(ReplicateException, RuntimeError):
    """The event loop of the sync facade is gone, or cannot be started."""


class WouldDeadlock(ReplicateException, RuntimeError):
    """The sync facade was called on its own event loop, where it would wait for itself for ever."""

    def __init__(self) -> None:
        super().__init__(
            "the sync facade was called on its own event loop, where it would wait for itself for"
            " ever; use the async client there"
        )
