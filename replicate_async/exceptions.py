"""Exceptions that this package raises.

```text
ReplicateException
├── ReplicateError              the API returned an error status
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
├── ModelError                  a prediction or training without a usable result
│   ├── PredictionFailed
│   │   └── StreamError                 while its output was streamed
│   ├── PredictionCanceled
│   ├── PredictionAborted               before it started
│   ├── RunTimeout                      (also TimeoutError)
│   │   └── StartTimeout                    before it started
│   ├── ContactLost                     it may still be running
│   ├── OutputNotSaved
│   └── OutputRemoved                   deleted before it was read
├── TransportError              no usable response
│   ├── ConnectError                    nothing was sent
│   │   └── CertificateError            the server's certificate is not accepted
│   ├── TransportTimeout                the server was silent for too long (also TimeoutError)
│   ├── ConnectionLost                  the connection broke
│   ├── UnreadableAnswer                the response is malformed
│   ├── AnswerTooLarge                  the response exceeds the limit on memory
│   ├── RefusedRedirect                 a redirect was not followed
│   └── AmbiguousCreateError            a create that may have succeeded
├── FileOutputError             an output file could not be retrieved
│   ├── FileExpired                     it has been deleted
│   ├── HostNotAllowed                  by `Client(output_hosts=...)`
│   ├── IncompleteFile
│   ├── FileTooLarge
│   └── FileNotSaved                    (also OSError)
├── DirectoryNotWritable        `save_to` of `map` cannot be written any more (also OSError)
├── ArgumentError               (also ValueError)
│   ├── MissingToken
│   ├── InvalidReference
│   └── InvalidSignature
├── ArgumentTypeError           (also TypeError)
├── JournalError                the journal of `map` cannot be used
├── MissingDependency           an optional package is not installed (also ImportError)
├── QueueFull                   the client-side rate limit has no room; nothing was sent
├── ClientClosed                (also RuntimeError)
├── RequestDisconnected
├── StreamInUse                 (also RuntimeError)
├── StreamAbandoned             (also RuntimeError)
├── LoopClosed                  (also RuntimeError; sync client only)
└── WouldDeadlock               (also RuntimeError; sync client only)
```

Each class composes its message from the facts that it is given, and keeps them as attributes. All of them can
be pickled, with their prediction.
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from ._redaction import without_credentials, without_surrogates
from ._tracebacks import notebook_traceback
from .types import Job

__all__ = (
    "AmbiguousCreateError",
    "AnswerTooLarge",
    "ArgumentError",
    "ArgumentTypeError",
    "AuthenticationError",
    "BadRequestError",
    "CertificateError",
    "ClientClosed",
    "ConflictError",
    "ConnectError",
    "ConnectionLost",
    "ContactLost",
    "DirectoryNotWritable",
    "FileExpired",
    "FileNotSaved",
    "FileOutputError",
    "FileTooLarge",
    "HostNotAllowed",
    "IncompleteFile",
    "InvalidReference",
    "InvalidSignature",
    "JournalError",
    "LoopClosed",
    "MissingDependency",
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
    "QueueFull",
    "RateLimitError",
    "RefusedRedirect",
    "ReplicateError",
    "ReplicateException",
    "RequestDisconnected",
    "RunTimeout",
    "ServerError",
    "StartTimeout",
    "StreamAbandoned",
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
    """Base class of all exceptions that this package raises."""

    def __str__(self) -> str:
        return without_surrogates(super().__str__())  # what a model or a server says may have some

    def __reduce__(self) -> tuple[Any, ...]:
        facts = {k: v for k, v in self.__dict__.items() if k != "__notes__"}
        if isinstance(self, OSError):
            facts["errno"] = self.errno  # not in __dict__
        return _restore, (type(self), str(self), facts)

    def _render_traceback_(self) -> list[str]:
        """Return what a notebook displays: the traceback up to the user's line."""
        return notebook_traceback(self, ReplicateException)


# -- Error responses of the API ----------------------------------------------------------------


class ReplicateError(ReplicateException):
    """The API returned an error status (:api:`errors`).

    Some statuses have a subclass; `ReplicateError` itself is raised for all others.
    """

    method: str
    """HTTP method of the request."""
    url: str
    """URL of the request, without its query."""
    status: int
    """HTTP status code of the response."""
    title: str | None
    """Short name of the problem, if the response contains one."""
    detail: str | None
    """Explanation of the problem; the beginning of the body if it is not JSON."""
    type: str | None
    """URI of the type of the problem, if the response contains one."""
    instance: str | None
    """URI of this occurrence of the problem, if the response contains one."""
    invalid_fields: Sequence[Mapping[str, Any]]
    """Invalid fields of the request, each with `type`, `field` and `description`, or with `pointer` and `detail`."""
    retry_after: float | None
    """Seconds to wait before another attempt, if the response contains them in its headers or body."""
    headers: Mapping[str, str]
    """Headers of the response, with names in lower case."""
    hint: str | None
    """What may help, if this package knows something."""

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
        hint: str | None = None,
    ) -> None:
        self.method = method
        self.url = url = without_credentials(url)
        self.status = status
        self.title = title
        self.detail = detail
        self.type = type
        self.instance = instance
        self.invalid_fields = tuple(invalid_fields)
        self.retry_after = retry_after
        self.headers = dict(headers or {})
        said = ": ".join(part.strip() for part in (title, detail) if part and part.strip())
        message = f"{method} {url} returned status {status}"
        if said:
            message += f": {said}"
        if retry_after is not None:
            message += f" (the server asks to retry after {retry_after:g} s)"
        self.hint = hint or self._hint()
        if self.hint:
            message += f"\n{self.hint}"
        super().__init__(message)

    def _hint(self) -> str | None:
        return None

    @staticmethod
    def class_for(status: int) -> builtins.type[ReplicateError]:
        """Return the exception class for an HTTP status.

        Args:
            status: HTTP status code of an error response.

        Returns:
            The subclass for this status, or `ReplicateError`.
        """
        if status >= 500:
            return ServerError
        return _BY_STATUS.get(status, ReplicateError)


class BadRequestError(ReplicateError):
    """400: the request is malformed, or fails the validation by the API."""


class AuthenticationError(ReplicateError):
    """401: the token is missing, wrong or expired."""

    def _hint(self) -> str | None:
        return "Check the environment variable REPLICATE_API_TOKEN, or Client(api_token=...)."


class PaymentRequiredError(ReplicateError):
    """402: the account has no credit, or no billing set up."""


class PermissionDeniedError(ReplicateError):
    """403: the account does not have the permission."""


class NotFoundError(ReplicateError):
    """404: the object does not exist, or is not visible to this account."""


class ConflictError(ReplicateError):
    """409: the name is already in use."""


class PayloadTooLargeError(ReplicateError):
    """413: the file is larger than the API accepts."""


class ValidationError(ReplicateError):
    """422: the input or another part of the body is invalid; see `invalid_fields`."""


class RateLimitError(ReplicateError):
    """429: too many requests were sent; see `retry_after`."""


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
    """A prediction or training has no usable result: it failed, was cancelled, or did not end in time."""

    prediction: Job
    """The prediction or training, in its last known state."""
    code: str | None
    """Code in the error text, such as `"E1001"`, or `None` (:api:`prediction-errors`)."""
    kind: str
    """Kind of the failure: `"content_policy"`, `"invalid_input"`, `"capacity"`,
    `"out_of_memory"`, `"interrupted"`, `"timeout"` or `"unknown"`."""
    retryable: bool
    """Whether the failure is known to be transient: the same input may succeed if it is run, and billed, again."""

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


def _continuation(prediction: Job) -> str:
    call = f"predictions.wait({prediction.id!r})"
    if type(prediction).__name__ == "Training":
        call = f"trainings.get({prediction.id!r})"
    if prediction.status == "succeeded":
        return f"It has succeeded meanwhile: its output is in the prediction, and {call} returns it again."
    return f"It may still be running: continue with {call}."


def _advice(kind: str, *, retryable: bool) -> str:
    if retryable:
        return "It may succeed if it is run, and paid for, again."
    if kind in ("content_policy", "invalid_input"):
        return "Change the input: the same one will probably fail again."
    if kind == "out_of_memory":
        return "Make the input smaller: the same one will probably fail again."
    return "Its logs may say why: see prediction.logs."


class PredictionFailed(ModelError):
    """The model failed. The message contains its error text."""

    def __init__(
        self,
        prediction: Job,
        *,
        code: str | None = None,
        kind: str = "unknown",
        retryable: bool = False,
    ) -> None:
        advice = _advice(kind, retryable=retryable)
        super().__init__(prediction, "failed", advice, code=code, kind=kind, retryable=retryable)


class StreamError(PredictionFailed):
    """The model failed while its output was streamed."""

    text: str
    """Text of the output that arrived before the failure."""

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
        # The prediction may not have its error text yet, or not any more.
        fact = "failed" if prediction.error or not said else f"failed: {said.strip()}"
        advice = _advice(kind, retryable=retryable)
        ModelError.__init__(
            self, prediction, fact, advice, code=code, kind=kind, retryable=retryable
        )


class PredictionCanceled(ModelError):
    """The prediction was cancelled, or its deadline passed while it was running."""

    def __init__(self, prediction: Job) -> None:
        super().__init__(prediction, "was canceled")


class PredictionAborted(ModelError):
    """The prediction ended before it started. It is not charged."""

    def __init__(self, prediction: Job) -> None:
        super().__init__(prediction, "was aborted before it started (not charged)")


class RunTimeout(ModelError, TimeoutError):
    """The prediction did not end within `timeout` seconds, and was cancelled if the message says so."""

    timeout: float
    """The timeout, in seconds."""

    def __init__(
        self,
        prediction: Job,
        timeout: float,
        *,
        canceled: bool = False,
        event: Literal["end", "start"] = "end",
    ) -> None:
        self.timeout = timeout
        super().__init__(
            prediction,
            f"did not {event} within {timeout:g} s (last status: {prediction.status})",
            "It has been cancelled." if canceled else _continuation(prediction),
        )


class StartTimeout(RunTimeout):
    """The prediction did not start within `start_timeout`, and was cancelled unless the message says otherwise."""

    def __init__(self, prediction: Job, timeout: float, *, canceled: bool = False) -> None:
        super().__init__(prediction, timeout, canceled=canceled, event="start")


class ContactLost(ModelError):
    """The prediction could not be followed to its end. It may still be running."""

    def __init__(self, prediction: Job, reason: str) -> None:
        super().__init__(
            prediction,
            f"could not be followed to its end ({reason})",
            _continuation(prediction),
        )


class OutputNotSaved(ModelError):
    """The prediction succeeded, but not all files of its output could be saved to `save_to`.

    The files in `prediction.output` can be downloaded for one hour (:api:`retention`); those that were saved have a
    `path`. `__cause__` is the first failure.
    """

    failures: Sequence[ReplicateException]
    """One exception for each file that could not be saved."""

    def __init__(
        self, prediction: Job, reason: str, failures: Sequence[ReplicateException] = ()
    ) -> None:
        self.failures = tuple(failures)
        advice = "They can be downloaded from prediction.output for one hour."
        if any(isinstance(failure, FileExpired) for failure in failures):
            advice = "They are deleted after one hour: run it again if you need them; it will be paid for again."
        super().__init__(
            prediction, f"succeeded, but its files could not be saved ({reason})", advice
        )


class OutputRemoved(ModelError):
    """The prediction succeeded, but its output has been deleted, which happens after one hour (:api:`retention`)."""

    def __init__(self, prediction: Job) -> None:
        super().__init__(
            prediction,
            "succeeded, but its output has been deleted, which happens after one hour",
            "Run it again if you need its output; it will be paid for again.",
            retryable=True,
        )


# -- No usable response ------------------------------------------------------------------------


class TransportError(ReplicateException):
    """No usable response to a request was received."""

    method: str
    """HTTP method of the request."""
    url: str
    """URL of the request, without its query."""

    def __init__(self, method: str, url: str, fact: str) -> None:
        self.method = method
        self.url = without_credentials(url)
        super().__init__(f"{method} {self.url}: {without_credentials(fact)}")


class ConnectError(TransportError):
    """No connection could be established. Nothing was sent, so nothing is billed."""

    def __init__(self, method: str, url: str, reason: str, hint: str = "") -> None:
        said = f"could not connect; nothing was sent ({reason})"
        super().__init__(method, url, f"{said}. {hint}" if hint else said)


class CertificateError(ConnectError):
    """The certificate of the server was not accepted. Nothing was sent, and it is not tried again."""

    host: str
    """Host whose certificate it is."""

    def __init__(self, method: str, url: str, host: str, reason: str, cause: str = "") -> None:
        self.host = host
        said = f"the certificate of {host} is not accepted, certificate verify failed: {reason}"
        super().__init__(method, url, f"{said}. {cause}" if cause else said)


class TransportTimeout(TransportError, TimeoutError):
    """The server was silent for longer than the timeout, or its response took too long."""

    def __init__(self, method: str, url: str, reason: str) -> None:
        super().__init__(method, url, f"timed out ({reason})")


class ConnectionLost(TransportError):
    """The connection broke after the request, or a part of it, was sent."""

    def __init__(self, method: str, url: str, reason: str) -> None:
        super().__init__(method, url, f"the connection was lost ({reason})")


class UnreadableAnswer(TransportError):
    """The response is malformed: not JSON, or JSON of an unexpected shape."""

    status: int
    """HTTP status code of the response, or 0 if it has none that can be read."""
    body: str
    """Beginning of the body of the response."""

    def __init__(self, method: str, url: str, status: int, body: bytes | str, reason: str) -> None:
        self.status = status
        text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
        self.body = text[:500]
        begins = f"it begins with {text[:200]!r}" if text else "it is empty"
        response = f"the response (status {status})" if status else "the response"
        super().__init__(method, url, f"{response} could not be read: {reason}; {begins}")


class AnswerTooLarge(TransportError):
    """The response, an event of a stream, or the whole stream exceeds the limit on memory."""

    limit: int
    """The limit, in bytes after decompression; for a whole stream in characters."""
    prediction_id: str | None
    """ID of the prediction, if it is a stream."""

    def __init__(
        self,
        method: str,
        url: str,
        limit: int,
        what: Literal["answer", "event", "stream"] = "answer",
        *,
        prediction_id: str | None = None,
    ) -> None:
        self.limit = limit
        self.prediction_id = prediction_id
        noun = {"answer": "response", "event": "event", "stream": "whole stream"}[what]
        of = "" if prediction_id is None else f" of prediction {prediction_id}"
        unit = "characters" if what == "stream" else "bytes"
        super().__init__(
            method,
            url,
            f"the {noun}{of} is larger than {limit} {unit}; if you expect such sizes, raise the limit with"
            f" Client(limits=Limits({what}=...))",
        )


class RefusedRedirect(TransportError):
    """A redirect was not followed."""

    location: str
    """URL that the redirect leads to."""

    def __init__(self, method: str, url: str, location: str, reason: str) -> None:
        self.location = location
        super().__init__(method, url, f"the redirect to {location!r} was not followed ({reason})")


class AmbiguousCreateError(TransportError):
    """A create got no usable response, and may have succeeded: check `candidates` before you create it again."""

    reference: str
    """Model, version or deployment that was to be run, such as `"acme/greeter"`."""
    began: datetime
    """Time at which the request was sent, by the local clock."""
    candidates: Sequence[str]
    """IDs in the account's list that may be its result, although nothing proves it."""

    def __init__(
        self,
        method: str,
        url: str,
        reference: str,
        reason: str,
        began: datetime,
        candidates: Sequence[str] = (),
    ) -> None:
        self.reference = reference
        self.began = began
        self.candidates = tuple(candidates)
        since = (began - timedelta(seconds=5)).isoformat(timespec="seconds")
        check = f"predictions.list(created_after={since!r})"
        if url.endswith("/trainings"):
            check = "trainings.list()"
        listed = "although the account's list does not show it"
        if self.candidates:
            listed = f"and may be one of these: {', '.join(self.candidates)}"
        super().__init__(
            method,
            url,
            f"the request was sent, but no usable response was received ({reason}). A run of {reference}"
            f" may exist, and may be billed, {listed}. Before you create it again, check {check}",
        )


# -- Output files ------------------------------------------------------------------------------


class FileOutputError(ReplicateException):
    """An output file could not be retrieved."""

    url: str
    """URL of the file, without a name and password; a long data URI is truncated."""
    prediction_id: str | None
    """ID of the prediction, if it is known."""

    def __init__(self, url: str, fact: str, *, prediction_id: str | None = None) -> None:
        shown = without_credentials(url[:2000])
        self.url = shown if len(url) <= 200 else shown[:100] + "…"
        self.prediction_id = prediction_id
        of = "" if prediction_id is None else f" (output of prediction {prediction_id})"
        super().__init__(f"{self.url}{of}: {fact}")


class FileExpired(FileOutputError):
    """The file has been deleted: output files are kept for one hour (:api:`retention`)."""

    status: int
    """HTTP status code of the response, 404 or 410."""

    def __init__(
        self, url: str, status: int, *, signed: bool = False, prediction_id: str | None = None
    ) -> None:
        self.status = status
        super().__init__(
            url,
            f"the file was not found ({status}): it has been deleted, or has expired, or the signature is"
            " invalid"
            if signed
            else f"the file is gone ({status}). Output files of predictions created through the API are"
            " deleted after one hour: save them in time, as run(save_to=...) does",
            prediction_id=prediction_id,
        )


class HostNotAllowed(FileOutputError):
    """The file, or a redirect from it, is at a host that `Client(output_hosts=...)` does not allow; nothing was sent there."""

    host: str
    """The host; empty if the URL has none that is valid."""

    def __init__(self, url: str, host: str, prediction_id: str | None) -> None:
        self.host = host
        super().__init__(
            url,
            f"the file was not fetched, since it is, or a redirect leads, at the host {host!r}, which"
            " Client(output_hosts=...) does not allow",
            prediction_id=prediction_id,
        )


class IncompleteFile(FileOutputError):
    """The download ended before the file was complete, or took too long."""

    seconds: float | None
    """The limit on its duration, if it took longer."""

    def __init__(
        self,
        url: str,
        received: int,
        expected: int | None,
        *,
        seconds: float | None = None,
        prediction_id: str | None = None,
    ) -> None:
        self.seconds = seconds
        of = f" of {expected}" if expected is not None else ""
        if seconds is None:
            fact = f"the download ended after {received}{of} bytes; try it again"
        else:
            fact = (
                f"the download took longer than {seconds:g} s, and {received}{of} bytes were received; if you expect"
                " that, raise the limit with Client(timeout=Timeout(download=...))"
            )
        super().__init__(url, fact, prediction_id=prediction_id)


class FileTooLarge(FileOutputError):
    """The file is larger than the limit on memory or disk."""

    limit: int
    """The limit, in bytes."""

    def __init__(
        self,
        url: str,
        limit: int,
        size: int | None = None,
        *,
        to: Literal["read", "save", "expand"] = "read",
        prediction_id: str | None = None,
    ) -> None:
        self.limit = limit
        has = f"more than {limit}" if size is None else str(size)
        rest = {
            "read": "are read into memory: use save() or iterate over the file, or raise the limit with"
            " Client(limits=Limits(file=...))",
            "save": "are saved: if you expect such sizes, raise the limit with Client(limits=Limits(save=...))",
            "expand": "are accepted of a file that the server compresses: if you expect that, raise the limit"
            " with Client(limits=Limits(file=...))",
        }[to]
        super().__init__(
            url,
            f"the file has {has} bytes, and at most {limit} {rest}",
            prediction_id=prediction_id,
        )


class FileNotSaved(FileOutputError, OSError):
    """The file could not be written to disk. Nothing was left there."""

    path: str
    """Path of the file that could not be written."""
    errno: int | None
    """Error number of the operating system, if there is one."""

    def __init__(
        self, url: str, path: str, error: Exception, *, prediction_id: str | None = None
    ) -> None:
        self.path = path
        super().__init__(
            url, f"could not be saved as {path!r} ({error})", prediction_id=prediction_id
        )
        self.errno = getattr(error, "errno", None)


class DirectoryNotWritable(ReplicateException, OSError):
    """Nothing more can be saved to `save_to`, for example because the disk is full. The prediction was not created."""

    path: str
    """The directory."""
    errno: int | None
    """Error number of the operating system."""

    def __init__(self, path: str, number: int, reason: str) -> None:
        self.path = path
        super().__init__(
            f"not created, since nothing more can be saved in {path!r} ({reason}); nothing is billed"
        )
        self.errno = number


# -- Arguments and state -----------------------------------------------------------------------


class ArgumentError(ReplicateException, ValueError):
    """An argument has an invalid value. Nothing was sent."""

    argument: str
    """Name of the argument."""

    def __init__(self, argument: str, fact: str) -> None:
        self.argument = argument
        super().__init__(f"{argument}: {without_credentials(fact)}")


class ArgumentTypeError(ReplicateException, TypeError):
    """An argument has an invalid type. Nothing was sent."""

    argument: str
    """Name of the argument."""

    def __init__(self, argument: str, fact: str) -> None:
        self.argument = argument
        super().__init__(f"{argument}: {without_credentials(fact)}")


class MissingToken(ArgumentError):
    """There is no API token. Nothing was sent."""

    def __init__(self) -> None:
        super().__init__(
            "api_token",
            "there is no API token. Set the environment variable REPLICATE_API_TOKEN, or pass"
            " Client(api_token=...). Create a token at https://replicate.com/account/api-tokens;"
            " to try things without one, run `replicate-async emulator`, and set the variables that it prints",
        )


class InvalidReference(ArgumentError):
    """A string does not name a model, version or deployment, or is not a valid ID. Nothing was sent."""

    def __init__(self, argument: str, value: str, expected: str) -> None:
        super().__init__(argument, f"expected {expected}, got {value!r}")


class InvalidSignature(ArgumentError):
    """The signature of a webhook delivery is invalid or too old. Do not trust the delivery."""

    def __init__(self, reason: str) -> None:
        super().__init__("webhook", f"the signature is invalid: {reason}")


_MAX_NAMED: Final = 20
"""Predictions that a message names."""


class JournalError(ReplicateException):
    """The journal of `map` cannot be used. No further predictions are created."""

    kind: str
    """Kind of the problem: `"in_use"` (by another process), `"mismatch"` (the journal belongs to another model or to
    other inputs), `"unreadable"` (the file is not a journal) or `"failed"` (it cannot be written)."""
    path: str
    """Path of the journal."""
    fact: str
    """What is wrong."""
    predictions: tuple[str, ...]
    """IDs of the predictions that were in flight when it failed, and that it may not have. They were awaited, and their
    outcomes came before this error, unless the iteration was left."""

    def __init__(self, kind: str, path: str, fact: str, predictions: tuple[str, ...] = ()) -> None:
        self.kind = kind
        self.path = path
        self.fact = fact
        self.predictions = predictions
        message = f"journal {path}: {fact}"
        if predictions:
            named = ", ".join(predictions[:_MAX_NAMED])
            more = len(predictions) - _MAX_NAMED
            message += f". It may not have these predictions: {named}"
            message += f" and {more} more (see `predictions`)" if more > 0 else ""
        super().__init__(message)


class MissingDependency(ReplicateException, ImportError):
    """A package that this feature needs is not installed. Nothing was sent."""

    package: str
    """Name of the package, as it is imported."""

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        super().__init__(
            f"{package} is not installed: install it with pip install 'replicate-async[{extra}]'"
        )


class QueueFull(ReplicateException):
    """The request would wait for the client-side rate limit longer than `RateLimit.max_queue`: see `retry_after`."""

    retry_after: float
    """Seconds after which it would find room."""

    def __init__(self, wait: float, max_queue: float) -> None:
        self.retry_after = max(wait - max_queue, 0.0)
        super().__init__(
            f"not sent, since it would wait {wait:.1f} s for the rate limit, and {max_queue:g} s are allowed;"
            f" try again in {self.retry_after:.1f} s"
        )


class ClientClosed(ReplicateException, RuntimeError):
    """The client was used after it was closed."""

    def __init__(self) -> None:
        super().__init__("this client is closed; create another one")


class RequestDisconnected(ReplicateException):
    """The client of a web request has disconnected; nobody waits for a response any more."""

    def __init__(self) -> None:
        super().__init__("the client has disconnected; its run was cancelled")


class StreamInUse(ReplicateException, RuntimeError):
    """Two tasks waited for the next item of the same stream at the same time."""

    def __init__(self) -> None:
        super().__init__(
            "another task is waiting for the next item of this stream; read a stream in one task only"
        )


class StreamAbandoned(ReplicateException, RuntimeError):
    """The stream ended before, when waiting for its next item was cancelled or interrupted.

    Not raised after the stream was closed.
    """

    prediction: Job | None
    """The prediction, in its last known state; `None` if no prediction is known to have been created, and for the
    outcomes of `map`."""

    def __init__(self, prediction: Job | None, fact: str | None = None) -> None:
        self.prediction = prediction
        message = "this stream ended when waiting for its next item was cancelled or interrupted"
        if prediction is not None:
            fact = f"{_described(prediction)} {_fate(prediction)}"
        if fact is not None:
            message += f". {fact}"
        super().__init__(message)


def _fate(prediction: Job) -> str:
    """Return what has become of a prediction that is not followed any more."""
    if prediction.status in ("canceled", "aborted"):
        return "was cancelled"
    call = f"predictions.get({prediction.id!r})"
    if prediction.status in ("succeeded", "failed"):
        return f"has {prediction.status}: get it with {call}"
    return f"may still be running: follow it again with {call} and its stream()"


class LoopClosed(ReplicateException, RuntimeError):
    """The event loop of the sync client has stopped, or cannot be started; or the main thread had ended before first use."""


class WouldDeadlock(ReplicateException, RuntimeError):
    """The sync client was called on its own event loop, where the call would never return."""

    def __init__(self) -> None:
        super().__init__(
            "the sync client was called on its own event loop, where the call would never return; use"
            " the async client there"
        )
