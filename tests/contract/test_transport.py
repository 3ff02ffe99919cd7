"""The transport under faults: what is repeated, what is raised, and that nothing hangs."""

from __future__ import annotations

import asyncio
import email.utils
import json as jsonlib
import logging
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any, Self

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replicate_async import Client, Limits, RateLimit, Retry, Timeout, exceptions
from replicate_async.testing import Reply

from .wire import (
    ACCOUNT,
    BOUND,
    BUSY,
    CLOSE,
    FAULTS,
    GENEROUS,
    HTML,
    LOST,
    PREDICTION,
    QUICK,
    RESET,
    SILENT,
    STALL,
    UNREADABLE,
    Request,
    Step,
    Wire,
    answer,
    client_of,
    closed_port,
    drip,
    file_at,
    gzipped,
    json,
    problem,
    raw,
    redirect,
)

GOOD = json(ACCOUNT)
CREATED = json(PREDICTION, 201)
VERSION = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"


def cases(*tables: dict[str, Step]) -> list[Any]:
    """Return the steps of tables as parameters with their names."""
    return [pytest.param(step, id=name) for table in tables for name, step in table.items()]


class Opening(aiohttp.TraceConfig):
    """Opens a wire as soon as it has refused a connection."""

    def __init__(self, wire: Wire) -> None:
        super().__init__()
        self.refusals = 0

        async def refused(*_: object) -> None:
            self.refusals += 1
            wire.listen()

        self.on_request_exception.append(refused)


# -- Reads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", cases(LOST, SILENT, BUSY))
async def test_reads_are_repeated_after_faults_that_pass(fault: Step) -> None:
    """A read is sent again after a lost connection, silence, 408, 429, 500, 502, 503 and 504."""
    with Wire(fault, fault, GOOD) as wire:
        async with client_of(wire) as client:
            assert (await client.accounts.current()).username == "acme"
        # aiohttp repeats a read by itself if a kept connection was closed: here none is kept.
        assert wire.connections == 3


async def test_reads_are_repeated_when_nobody_listens_yet() -> None:
    """A refused connection is tried again."""
    with Wire(GOOD, listening=False) as wire:
        opening = Opening(wire)
        async with client_of(wire, trace_configs=[opening]) as client:
            assert (await client.accounts.current()).username == "acme"
        assert opening.refusals == 1
        assert len(wire.requests) == 1


@pytest.mark.parametrize("attempts", [1, 2, 4])
@pytest.mark.parametrize("fault", cases({"503": BUSY["503"], "reset": RESET, "stall": STALL}))
async def test_attempts_bound_the_repetitions(fault: Step, attempts: int) -> None:
    """`Retry.attempts` counts the first attempt; 1 means one."""
    with Wire(fault) as wire:
        retry = Retry(attempts=attempts, backoff=0.001, max_backoff=0.001)
        async with client_of(wire, retry=retry) as client:
            with pytest.raises((exceptions.ServerError, exceptions.TransportError)):
                await client.accounts.current()
        assert len(wire.requests) == attempts


async def test_one_attempt_means_one_even_for_429() -> None:
    """With `attempts=1` a 429 is raised, too."""
    with Wire(BUSY["429"], GOOD) as wire:
        async with client_of(wire, retry=Retry(attempts=1)) as client:
            with pytest.raises(exceptions.RateLimitError):
                await client.accounts.current()
        assert len(wire.requests) == 1


@pytest.mark.parametrize("gate", [GENEROUS, False], ids=["gate", "no gate"])
@pytest.mark.parametrize(
    "refusal",
    [
        problem(429, headers={"Retry-After": "1"}),
        problem(429, retry_after=1),
        problem(429, headers={"Retry-After": "0"}, retry_after=1),
        problem(503, headers={"Retry-After": "1"}),
    ],
    ids=["429 header", "429 body", "429 longer of both", "503 header"],
)
async def test_the_server_says_how_long_to_wait(refusal: Step, gate: Any) -> None:
    """The pause is as long as the header or the body asks, whichever is longer."""
    with Wire(refusal, GOOD) as wire:
        async with client_of(wire, rate_limit=gate) as client:
            began = time.monotonic()
            await client.accounts.current()
            assert 1 <= time.monotonic() - began < 3
        assert len(wire.requests) == 2


@pytest.mark.parametrize("form", ["seconds", "date", "body"])
@pytest.mark.parametrize("status", [429, 503])
async def test_a_pause_beyond_max_wait_is_not_made(form: str, status: int) -> None:
    """If the server asks for more than `max_wait`, the error is raised at once and tells it."""
    date = email.utils.formatdate(time.time() + 3600, usegmt=True)
    refusal = {
        "seconds": problem(status, headers={"Retry-After": "3600"}),
        "date": problem(status, headers={"Retry-After": date}),
        "body": problem(status, retry_after=3600.0),
    }[form]
    with Wire(refusal) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.ReplicateError) as caught:
                await client.accounts.current()
        assert caught.value.retry_after == pytest.approx(3600, abs=5)
        assert len(wire.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 413, 422, 418, 501])
async def test_refusals_are_not_repeated(status: int) -> None:
    """What will be refused again is not sent again."""
    with Wire(problem(status)) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.ReplicateError):
                await client.accounts.current()
        assert len(wire.requests) == 1


# -- Creates and writes ------------------------------------------------------------------------

Create = Callable[[Client], Awaitable[Any]]
CREATES: dict[str, Create] = {
    "predictions": lambda client: client.predictions.create(VERSION, {"text": "a"}),
    "models": lambda client: client.predictions.create(model="acme/greeter", input={"text": "a"}),
    "deployments": lambda client: client.predictions.create(deployment="acme/app", input={}),
    "trainings": lambda client: client.trainings.create(
        version=f"acme/base:{VERSION}", destination="acme/mine", input={"data": "https://x.test/d"}
    ),
}


def sent_creates(wire: Wire) -> list[Request]:
    """Return the requests that create something."""
    return [request for request in wire.requests if request.method == "POST"]


def only_for_posts(step: Step) -> Step:
    """Answer POSTs with a step, and refuse all else: nobody shall find a lost create in the list."""
    refusal = problem(403)
    return lambda request: step if request.method == "POST" else refusal


@pytest.mark.parametrize("create", CREATES.values(), ids=CREATES.keys())
@pytest.mark.parametrize(
    "name", ["reset after reading", "stall before the answer", "502 with HTML"]
)
async def test_each_kind_of_create_is_sent_once(create: Create, name: str) -> None:
    """Predictions, of whatever endpoint, and trainings are not sent again once they were."""
    with Wire(only_for_posts(FAULTS[name])) as wire:
        async with client_of(wire, timeout=Timeout(read=0.3)) as client:
            with pytest.raises((exceptions.AmbiguousCreateError, exceptions.ServerError)):
                await create(client)
        assert len(sent_creates(wire)) == 1


@pytest.mark.parametrize("name", [n for n in FAULTS if n not in ("429", "reset before reading")])
async def test_a_create_is_sent_once(name: str) -> None:
    """Whatever goes wrong after a create was sent, it is not sent again, and the error says so."""
    with Wire(only_for_posts(FAULTS[name])) as wire:
        async with client_of(wire, timeout=Timeout(read=0.3)) as client:
            with pytest.raises(exceptions.ReplicateException) as caught:
                await client.predictions.create(VERSION, {"text": "a"})
        assert len(sent_creates(wire)) == 1
        assert client.stats.created == 0
    if name in BUSY:
        assert isinstance(
            caught.value, (exceptions.AmbiguousCreateError, exceptions.ReplicateError)
        )
    else:
        assert isinstance(caught.value, exceptions.AmbiguousCreateError)
        assert caught.value.method == "POST"
        assert VERSION in caught.value.reference
        assert "may be billed" in str(caught.value)


async def test_a_create_on_a_reset_connection_is_sent_once() -> None:
    """A connection that is reset before the server has read may have carried the create."""
    early = FAULTS["reset before reading"]
    with Wire(early, only_for_posts(problem(403))) as wire:
        async with client_of(wire) as client:
            try:
                await client.predictions.create(VERSION, {"text": "a"})
            except exceptions.AmbiguousCreateError:
                assert sent_creates(wire) == []
            except exceptions.PermissionDeniedError:
                # The reset was so early that nothing had been sent.
                assert len(sent_creates(wire)) == 1


async def test_a_create_on_a_kept_connection_that_was_closed_is_ambiguous() -> None:
    """A reused connection that the server closes at the wrong moment may have carried the create."""
    with Wire(json(ACCOUNT, keep=True), only_for_posts(CLOSE)) as wire:
        async with client_of(wire) as client:
            await client.accounts.current()
            with pytest.raises(exceptions.AmbiguousCreateError):
                await client.predictions.create(VERSION, {"text": "a"})
        assert len(sent_creates(wire)) == 1
        assert sent_creates(wire)[0].connection == 1  # the kept one


@pytest.mark.parametrize("create", CREATES.values(), ids=CREATES.keys())
async def test_a_refused_create_is_sent_again(create: Create) -> None:
    """A 429 is an answer before anything happened: the create is sent again."""
    with Wire(BUSY["429"], BUSY["429"], CREATED) as wire:
        async with client_of(wire) as client:
            await create(client)
        assert len(wire.requests) == 3
        assert len({request.body for request in wire.requests}) == 1


@pytest.mark.parametrize("create", CREATES.values(), ids=CREATES.keys())
async def test_a_create_that_could_not_connect_is_sent_again(create: Create) -> None:
    """Where nothing was sent, nothing was billed: a refused connection is tried again."""
    with Wire(CREATED, listening=False) as wire:
        opening = Opening(wire)
        async with client_of(wire, trace_configs=[opening]) as client:
            await create(client)
        assert opening.refusals == 1
        assert len(wire.requests) == 1


async def test_a_create_that_never_connects_says_that_nothing_was_sent() -> None:
    """The error for a create without a connection is not the ambiguous one."""
    with closed_port() as url:
        async with client_of(url) as client:
            with pytest.raises(exceptions.ConnectError, match="nothing was sent"):
                await client.predictions.create(VERSION, {"text": "a"})


@pytest.mark.parametrize("named", [True, False], ids=["environment", "argument"])
async def test_an_api_that_is_not_there(named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says where the URL comes from, and asks for the emulator if it is on this machine."""
    monkeypatch.delenv("REPLICATE_BASE_URL", raising=False)
    with closed_port() as url:
        if named:
            monkeypatch.setenv("REPLICATE_BASE_URL", f" {url}/v1/ ")
        options: Any = {"retry": Retry(attempts=1), "base_url": None if named else url}
        async with Client("token", **options) as client:
            with pytest.raises(exceptions.ConnectError) as caught:
                await client.accounts.current()
    assert "Is the emulator running? `replicate-async emulator`" in str(caught.value)
    assert ("REPLICATE_BASE_URL points there" in str(caught.value)) == named


async def test_another_host_is_no_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that is not known is not asked for an emulator, and a proxy is not taken for the API."""
    monkeypatch.setenv("REPLICATE_BASE_URL", "http://replicate.invalid")
    async with Client("token", retry=Retry(attempts=1)) as client:
        with pytest.raises(exceptions.ConnectError, match=r"REPLICATE_BASE_URL points there$"):
            await client.accounts.current()
    with closed_port() as proxy:
        async with Client("token", retry=Retry(attempts=1), proxy=proxy) as client:
            with pytest.raises(exceptions.ConnectError, match=r"nothing was sent \(.*\)$"):
                await client.accounts.current()


WRITES: dict[str, Create] = {
    "DELETE": lambda client: client.models.delete("acme/greeter"),
    "PATCH": lambda client: client.deployments.update("acme/app", min_instances=1),
    "POST": lambda client: client.models.create(
        "acme", "new", visibility="private", hardware="cpu"
    ),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
@pytest.mark.parametrize(
    "fault", cases({name: FAULTS[name] for name in ("reset after reading", "503", "500", "408")})
)
async def test_writes_are_sent_once(write: Create, fault: Step) -> None:
    """DELETE, PATCH and POST are not repeated after they were sent."""
    with Wire(fault) as wire:
        async with client_of(wire) as client:
            with pytest.raises((exceptions.ReplicateError, exceptions.ConnectionLost)):
                await write(client)
        assert len(wire.requests) == 1


async def test_deletes_are_sent_once_on_kept_connections() -> None:
    """A DELETE is not repeated either when a kept connection ends under it."""
    with Wire(json(ACCOUNT, keep=True), CLOSE, answer(204)) as wire:
        async with client_of(wire) as client:
            await client.accounts.current()
            with pytest.raises(exceptions.ConnectionLost):
                await client.models.delete("acme/greeter")
        assert [request.method for request in wire.requests] == ["GET", "DELETE"]


async def test_cancelling_is_repeated() -> None:
    """To cancel twice is to cancel once: it is repeated as a read is."""
    with Wire(RESET, BUSY["503"], json({**PREDICTION, "status": "canceled"})) as wire:
        async with client_of(wire) as client:
            cancelled = await client.predictions.cancel(PREDICTION["id"])
        assert cancelled.status == "canceled"
        assert len(wire.requests) == 3


# -- Polls -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", cases(FAULTS))
async def test_polls_outlast_each_fault(fault: Step) -> None:
    """A paid result is not lost to any fault between its polls, even if it comes many times."""
    running = json({**PREDICTION, "status": "processing", "completed_at": None})
    script = [running, *[fault] * 6, json(PREDICTION)]
    with Wire(*script) as wire:
        async with client_of(wire, poll_interval=0.001) as client:
            found = await client.predictions.wait(PREDICTION["id"], timeout=30)
        assert found.output == "hello Alice"


async def test_polls_outlast_all_faults_in_a_row() -> None:
    """`run` brings its result home through every fault, one after the other, with one create."""
    begun = json({**PREDICTION, "status": "starting", "completed_at": None, "output": None}, 201)
    with Wire(begun, *FAULTS.values(), json(PREDICTION)) as wire:
        async with client_of(wire, poll_interval=0.001) as client:
            output = await client.run(VERSION, {"text": "Alice"}, wait=False, timeout=60)
        assert output == "hello Alice"
        assert [request.method for request in wire.requests].count("POST") == 1


async def test_waiting_ends_in_time_under_faults() -> None:
    """Faults that do not pass end with the caller's time, and the error has the prediction's id."""
    with Wire(RESET) as wire:
        async with client_of(wire) as client:
            began = time.monotonic()
            with pytest.raises(exceptions.RunTimeout) as caught:
                await client.predictions.wait(PREDICTION["id"], timeout=0.5)
            assert time.monotonic() - began < 5
        assert caught.value.prediction.id == PREDICTION["id"]


# -- Errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, exceptions.BadRequestError),
        (401, exceptions.AuthenticationError),
        (402, exceptions.PaymentRequiredError),
        (403, exceptions.PermissionDeniedError),
        (404, exceptions.NotFoundError),
        (409, exceptions.ConflictError),
        (413, exceptions.PayloadTooLargeError),
        (418, exceptions.ReplicateError),
        (422, exceptions.ValidationError),
        (429, exceptions.RateLimitError),
        (500, exceptions.ServerError),
        (503, exceptions.ServerError),
        (599, exceptions.ServerError),
    ],
)
async def test_each_status_has_its_error(
    status: int, kind: type[exceptions.ReplicateError]
) -> None:
    """The status selects the class, and all that the answer tells is in the error."""
    fields = {
        "title": "Input validation failed",
        "detail": "- input.text: text is required\n",
        "type": "https://example.test/problem",
        "instance": "https://example.test/problem/7",
        "invalid_fields": [{"type": "required", "field": "input.text", "description": "required"}],
        "retry_after": 7,
    }
    with Wire(problem(status, headers={"X-Request-Id": "req-7"}, **fields)) as wire:
        async with client_of(wire, retry=Retry(attempts=1)) as client:
            with pytest.raises(exceptions.ReplicateError) as caught:
                await client.predictions.get("abc")
        error = caught.value
        assert type(error) is kind
        assert error.status == status
        assert error.title == fields["title"]
        assert error.detail == fields["detail"]
        assert error.type == fields["type"]
        assert error.instance == fields["instance"]
        assert list(error.invalid_fields) == fields["invalid_fields"]
        assert error.retry_after == 7
        assert error.headers["x-request-id"] == "req-7"
        assert error.method == "GET"
        assert error.url == f"{wire.url}/v1/predictions/abc"
        assert "text is required" in str(error)
        assert str(status) in str(error)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (HTML, "text/html"),
        (b"", None),
        (b"\xff\xfe\x00garbage", "application/octet-stream"),
        (b'{"detail": 7, "title": null, "invalid_fields": {}}', "application/json"),
        (b'["a", "list"]', "application/problem+json"),
        (b'{"detail": "cut o', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"x" * 5_000_000, "text/plain"),
    ],
    ids=["html", "empty", "binary", "mistyped", "list", "cut", "nested", "5 MB"],
)
async def test_error_bodies_of_any_kind(body: bytes, content_type: str | None) -> None:
    """An error body that is not what the API sends costs neither the error nor much memory."""
    with Wire(answer(403, body, content_type)) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.PermissionDeniedError) as caught:
                await client.predictions.get("abc")
        assert caught.value.status == 403
        assert len(str(caught.value)) < 3000
        assert len(caught.value.detail or "") < 3000


async def test_a_problem_is_recognised_whatever_its_content_type() -> None:
    """The detail of an error is read from JSON even if it is called text."""
    with Wire(json({"detail": "no such thing"}, 404, content_type="text/plain")) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.NotFoundError) as caught:
                await client.predictions.get("abc")
        assert caught.value.detail == "no such thing"


async def test_an_error_whose_body_breaks_off_is_still_that_error() -> None:
    """The status alone tells enough."""
    cut = raw(b"HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\n{", reset=False)
    stalled = raw(b"HTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\n{", stall=True)
    for step in (cut, stalled):
        with Wire(step) as wire:
            async with client_of(wire, timeout=Timeout(read=0.3)) as client:
                with pytest.raises(exceptions.NotFoundError):
                    await client.predictions.get("abc")


@pytest.mark.parametrize("name", [n for n in UNREADABLE if n != "garbage"])
async def test_unreadable_answers_say_what_came(name: str) -> None:
    """An answer that cannot be read is an error with status, URL and the beginning of the body."""
    with Wire(UNREADABLE[name]) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.UnreadableAnswer) as caught:
                await client.predictions.get("abc")
        error = caught.value
        assert error.status == 200
        assert error.url == f"{wire.url}/v1/predictions/abc"
        assert f"{wire.url}/v1/predictions/abc" in str(error)
        assert "200" in str(error)
        if name == "HTML with 200":
            assert error.body.startswith("<!doctype html>")
            assert "<!doctype html>" in str(error)


async def test_garbage_is_an_error_of_ours() -> None:
    """What is not even HTTP is a transport error."""
    with Wire(UNREADABLE["garbage"]) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.TransportError):
                await client.predictions.get("abc")


@pytest.mark.parametrize(
    "content_type", ["text/html", "text/plain; charset=utf-8", "application/octet-stream", None]
)
async def test_json_is_read_whatever_it_is_called(content_type: str | None) -> None:
    """JSON is never refused for its content type."""
    body = jsonlib.dumps(ACCOUNT).encode() + b"\n"
    with Wire(answer(200, body, content_type)) as wire:
        async with client_of(wire) as client:
            assert (await client.accounts.current()).username == "acme"


@pytest.mark.parametrize("status", [200, 202, 204])
async def test_answers_with_nothing_in_them(status: int) -> None:
    """A delete that is answered with 200, 202 or 204 and no body has succeeded."""
    with Wire(answer(status, b"", None)) as wire:
        async with client_of(wire) as client:
            await client.models.versions.delete("acme/greeter", VERSION)
        assert wire.requests[0].method == "DELETE"


async def test_nesting_beyond_reason_is_unreadable() -> None:
    """JSON that no recursion can read is an unreadable answer, not a crash."""
    with Wire(answer(200, b"[" * 200_000 + b"]" * 200_000)) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.UnreadableAnswer):
                await client.accounts.current()


@pytest.mark.parametrize(
    "headers",
    [
        {"ratelimit-remaining": "9" * 5000},
        {"ratelimit-remaining": "-1"},
        {"ratelimit-remaining": "many"},
        {"ratelimit-remaining": "\u00b2"},
        {"ratelimit-reset": "9" * 5000},
        {"Retry-After": "9" * 5000},
    ],
    ids=["huge", "negative", "text", "superscript", "reset", "retry-after"],
)
async def test_nonsense_in_headers_costs_no_answer(headers: dict[str, str]) -> None:
    """Headers that tell nonsense of the limits do not spoil a good answer."""
    with Wire(json(ACCOUNT, headers=headers)) as wire:
        async with client_of(wire, rate_limit=GENEROUS) as client:
            assert (await client.accounts.current()).username == "acme"


async def test_an_unreadable_answer_tells_what_is_left_of_the_limit() -> None:
    """Its headers count, whatever its body is."""
    broken = answer(200, b"{", headers={"ratelimit-remaining": "7"})
    slow = RateLimit(others=1000, per=1000.0)
    with Wire(broken) as wire:
        async with client_of(wire, rate_limit=slow, retry=Retry(attempts=1)) as client:
            with pytest.raises(exceptions.UnreadableAnswer):
                await client.accounts.current()
            assert client.rate_limit is not None
            assert 7 <= client.rate_limit.others.remaining < 100


@pytest.mark.parametrize("digits", [400, 5000])
async def test_nonsense_in_a_refusal_is_still_a_refusal(digits: int) -> None:
    """A 429 whose text names an absurd limit is a RateLimitError."""
    detail = f"You have {'9' * digits} requests per minute with a burst of {'9' * digits}."
    with Wire(problem(429, detail=detail)) as wire:
        async with client_of(wire, rate_limit=GENEROUS, retry=Retry(attempts=1)) as client:
            with pytest.raises(exceptions.RateLimitError):
                await client.accounts.current()


async def test_input_that_is_no_unicode_is_sent_escaped() -> None:
    """A lone surrogate, which UTF-8 does not have, arrives as JSON writes it, or is refused as ours."""
    with Wire(CREATED) as wire:
        async with client_of(wire) as client:
            try:
                await client.predictions.create(VERSION, {"text": "\ud800"})
            except exceptions.ArgumentError:
                assert wire.requests == []
            else:
                assert wire.requests[0].json()["input"] == {"text": "\ud800"}


# -- Sizes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
async def test_answers_are_bounded(compressed: bool) -> None:
    """An answer beyond `Limits.answer`, counted after inflating, is an error, and memory is safe."""
    size = 100 * 2**20 if compressed else 4 * 2**20
    body = b" " * size
    with Wire(gzipped(body) if compressed else answer(200, body)) as wire:
        async with client_of(wire, limits=Limits(answer=100_000)) as client:
            del body
            tracemalloc.start()
            try:
                with pytest.raises(exceptions.AnswerTooLarge) as caught:
                    await client.accounts.current()
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert caught.value.limit == 100_000
        assert peak < 32 * 2**20
        assert len(wire.requests) == 1


async def test_gzip_is_read() -> None:
    """Compressed answers are read."""
    with Wire(gzipped(jsonlib.dumps(ACCOUNT).encode())) as wire:
        async with client_of(wire) as client:
            assert (await client.accounts.current()).username == "acme"


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
async def test_error_bodies_are_bounded(compressed: bool) -> None:
    """No more of an error's body is read than `Limits.error`."""
    body = b'{"detail": "' + b"x" * (50 * 2**20) + b'"}'
    with Wire(gzipped(body, 400) if compressed else answer(400, body)) as wire:
        async with client_of(wire) as client:
            tracemalloc.start()
            try:
                with pytest.raises(exceptions.BadRequestError) as caught:
                    await client.accounts.current()
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
        assert len(str(caught.value)) < 3000
        assert peak < 16 * 2**20


# -- Time --------------------------------------------------------------------------------------


async def test_silence_ends_a_request() -> None:
    """A silent server is given up after `Timeout.read`, not later."""
    with Wire(STALL) as wire:
        async with client_of(wire, timeout=Timeout(read=0.2), retry=Retry(attempts=1)) as client:
            began = time.monotonic()
            with pytest.raises(exceptions.TransportTimeout) as caught:
                await client.accounts.current()
            assert 0.2 <= time.monotonic() - began < 3
        assert isinstance(caught.value, TimeoutError)


async def test_a_wait_that_was_asked_for_is_no_silence() -> None:
    """The seconds of `Prefer: wait` are added to the read timeout."""

    def late(request: Request) -> Step:
        time.sleep(0.6)  # in the server's thread
        return CREATED

    with Wire(late) as wire:
        async with client_of(wire, timeout=Timeout(read=0.2)) as client:
            prediction = await client.predictions.create(VERSION, {"text": "a"}, wait=1)
        assert prediction.status == "succeeded"
        assert wire.requests[0].headers["prefer"] == "wait=1"


async def test_an_answer_in_drips_ends() -> None:
    """An answer that drags on without ever being silent is given up, too."""
    with Wire(drip(30, every=0.05)) as wire:
        async with client_of(wire, timeout=Timeout(read=0.2), retry=Retry(attempts=1)) as client:
            began = time.monotonic()
            with pytest.raises(exceptions.TransportTimeout, match="slow"):
                await client.accounts.current()
            assert time.monotonic() - began < 10
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0  # the caller's task is as it was


async def test_a_loop_that_was_held_up_is_no_silent_server() -> None:
    """An answer that came while somebody blocked the event loop is read, however late it is."""
    loop = asyncio.get_running_loop()

    def block(request: Request) -> Step:
        loop.call_soon_threadsafe(time.sleep, 0.4)
        time.sleep(0.1)  # in the server's thread
        return GOOD

    with Wire(block) as wire:
        async with client_of(wire, timeout=Timeout(read=0.2), retry=Retry(attempts=1)) as client:
            assert (await client.accounts.current()).username == "acme"


async def test_silence_counts_anew_with_each_piece_of_an_answer() -> None:
    """An answer that takes longer than `Timeout.read`, but is never silent for so long, is read."""
    body = jsonlib.dumps(ACCOUNT).encode()

    headers = {"Content-Length": str(len(body)), "Connection": "close"}
    pieces = [body[number : number + 10] for number in range(0, len(body), 10)]
    with Wire(Reply(200, pieces, headers, pause=0.1, end="close")) as wire:
        async with client_of(wire, timeout=Timeout(read=0.4), retry=Retry(attempts=1)) as client:
            assert (await client.accounts.current()).username == "acme"


async def test_a_body_that_comes_long_after_its_head_is_read() -> None:
    """The head of an answer ends the silence: a create that was answered so is no ambiguous one."""
    body = jsonlib.dumps(PREDICTION).encode()

    def late(request: Request) -> Step:
        time.sleep(0.6)  # in the server's thread
        headers = {"Content-Length": str(len(body)), "Connection": "close"}
        return Reply(201, [body], headers, pause=0.6, end="close")

    with Wire(late) as wire:
        async with client_of(wire, timeout=Timeout(read=1.0)) as client:
            created = await client.predictions.create(VERSION, {"text": "a"})
        assert created.id == PREDICTION["id"]
        assert len(wire.requests) == 1


async def test_the_callers_timeout_wins_over_silence() -> None:
    """A cancellation that comes together with the end of the server's silence is no timeout of ours."""
    loop = asyncio.get_running_loop()

    def stall(request: Request) -> Step:
        # What is due from 0.15 to 0.3 seconds after the request is done at once.
        loop.call_soon_threadsafe(loop.call_later, 0.15, time.sleep, 0.15)
        return STALL

    with Wire(stall) as wire:
        async with client_of(wire, timeout=Timeout(read=0.25)) as client:
            began = time.monotonic()
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(0.2):
                    await client.accounts.current()
            assert time.monotonic() - began < 2
        assert not isinstance(caught.value, exceptions.ReplicateException)
        assert len(wire.requests) == 1


async def test_the_callers_timeout_wins_over_slowness() -> None:
    """A cancellation that comes together with the end of the time for an answer is no timeout of ours."""
    loop = asyncio.get_running_loop()
    with Wire(drip(40, every=0.05)) as wire:
        async with client_of(wire, timeout=Timeout(read=0.25)) as client:
            # What is due from 0.5 to 1 second from now, such as our timeout after 0.75 s, is done at once.
            loop.call_later(0.5, time.sleep, 0.5)
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(0.85):
                    await client.accounts.current()
        assert not isinstance(caught.value, exceptions.ReplicateException)
        assert len(wire.requests) == 1


async def test_silence_ends_a_request_in_whose_middle_another_is_made() -> None:
    """A trace of aiohttp that makes a request of its own does not take the time limit away."""
    trace = aiohttp.TraceConfig()
    made: list[object] = []

    async def look(*_: object) -> None:
        if not made:
            made.append(None)
            made.append(await client.accounts.current())

    trace.on_request_start.append(look)
    with Wire(GOOD, STALL) as wire:
        options: dict[str, Any] = {"retry": Retry(attempts=1), "trace_configs": [trace]}
        async with client_of(wire, timeout=Timeout(read=0.3), **options) as client:
            with pytest.raises(exceptions.TransportTimeout):
                await asyncio.wait_for(client.hardware.list(), BOUND)
        assert len(made) == 2


async def test_a_cancelled_request_is_cancelled() -> None:
    """Cancelling a task that waits for an answer ends it at once, with CancelledError."""
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()

    def tell(request: Request) -> Step:
        loop.call_soon_threadsafe(arrived.set)
        return STALL

    with Wire(tell, GOOD) as wire:
        async with client_of(wire) as client:
            task = asyncio.create_task(client.accounts.current())  # awaited below
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # What it held is free again.
            assert (await client.accounts.current()).username == "acme"


async def test_the_callers_timeout_is_the_callers() -> None:
    """`asyncio.timeout` around a request raises its own error, not one of the transport."""
    with Wire(STALL) as wire:
        async with client_of(wire, timeout=Timeout(read=10)) as client:
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(0.2):
                    await client.accounts.current()
        assert not isinstance(caught.value, exceptions.ReplicateException)


async def test_connections_are_counted_and_come_back() -> None:
    """`Limits.connections` bounds them, waiting for one is no timeout, and cancelled waiters leave."""
    together = 0
    most = 0

    def count(request: Request) -> Step:
        nonlocal together, most
        together += 1
        most = max(most, together)
        time.sleep(0.05)  # in the server's threads
        together -= 1
        return json(ACCOUNT, keep=True)

    with Wire(count) as wire:
        limits = Limits(connections=2)
        async with client_of(wire, limits=limits, timeout=Timeout(read=2)) as client:
            tasks = [asyncio.create_task(client.accounts.current()) for _ in range(20)]
            await asyncio.sleep(0)
            for task in tasks[5:15]:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(result, asyncio.CancelledError) for result in results) == 10
        assert sum(not isinstance(result, BaseException) for result in results) == 10
        assert most <= 2
        assert wire.connections <= 2


async def test_requests_do_not_wait_for_ever_for_who_is_silent() -> None:
    """A place that a silent request held is given to the next."""
    with Wire(STALL, GOOD) as wire:
        options: dict[str, Any] = {"limits": Limits(connections=1), "retry": Retry(attempts=1)}
        async with client_of(wire, timeout=Timeout(read=0.2), **options) as client:
            results = await asyncio.gather(
                client.accounts.current(), client.accounts.current(), return_exceptions=True
            )
        assert isinstance(results[0], exceptions.TransportTimeout)
        assert not isinstance(results[1], BaseException)


# -- Redirects ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_reads_follow_redirects(status: int) -> None:
    """A GET follows a redirect on the same origin, absolute or relative, with the token."""
    for location in ("{url}/v1/elsewhere?a=%2F", "/v1/elsewhere?a=%2F", "elsewhere?a=%2F"):
        with Wire(GOOD) as wire:
            wire.script = [redirect(location.format(url=wire.url), status), *wire.script]
            async with client_of(wire) as client:
                assert (await client.accounts.current()).username == "acme"
            assert wire.requests[1].target == "/v1/elsewhere?a=%2F"
            assert "authorization" in wire.requests[1].headers


async def test_redirects_in_a_circle_end() -> None:
    """A loop of redirects is an error after a few."""
    with Wire(redirect("/v1/account")) as wire:
        async with client_of(wire) as client:
            with pytest.raises(exceptions.RefusedRedirect, match="too many"):
                await client.accounts.current()
        assert len(wire.requests) <= 10


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_create_is_not_redirected(status: int) -> None:
    """A POST does not follow a redirect, wherever it leads; nor does a DELETE or PATCH."""
    for call in (CREATES["models"], WRITES["DELETE"], WRITES["PATCH"]):
        with Wire(only_for_posts(redirect("/v1/elsewhere", status))) as wire:
            wire.script = [redirect("/v1/elsewhere", status)]
            if call is CREATES["models"]:
                wire.script = [only_for_posts(redirect("/v1/elsewhere", status))]
            async with client_of(wire) as client:
                with pytest.raises(exceptions.TransportError):
                    await call(client)
            assert not [r for r in wire.requests if r.path == "/v1/elsewhere"]
            assert len([r for r in wire.requests if r.method != "GET"]) == 1


HOSTILE_LOCATIONS = {
    "none": None,
    "empty": "",
    "script": "javascript:alert(1)",
    "file": "file:///etc/passwd",
    "no host": "http://",
    "bracket": "http://[",
    "port": "http://127.0.0.1:99999/",
    "text port": "http://127.0.0.1:port/",
    "latin": "/caf\u00e9",
    "latin host": "http://caf\u00e9.invalid\xff/",
    "space": "/a b",
    "data": "data:application/json,{}",
}


@pytest.mark.parametrize("location", HOSTILE_LOCATIONS.values(), ids=HOSTILE_LOCATIONS.keys())
async def test_redirects_to_nowhere_are_errors_of_ours(location: str | None) -> None:
    """Whatever the server writes into `Location`, what escapes is of our hierarchy."""
    target = answer(302, headers={} if location is None else {"Location": location})
    with Wire(target, problem(404)) as wire:
        async with client_of(wire, retry=Retry(attempts=1)) as client:
            with pytest.raises(exceptions.ReplicateException):
                await client.accounts.current()
        with Wire(target, problem(404)) as delivery:
            async with client_of(wire, retry=Retry(attempts=1)) as client:
                file = file_at(client, f"{delivery.url}/f")
                with pytest.raises(exceptions.ReplicateException):
                    await file.read()


# -- URLs --------------------------------------------------------------------------------------

SIGNED = (
    "/xezq/a%2Fb%3Ac/~tilde'quote/plus+plus/out-0.png"
    "?X-Amz-Signature=zuog%2BhqL%2fab%3D%3D&Expires=1&x=a+b&y=~'()!*&z=%E2%98%95&&=&e="
)


async def read_from(client: Client, url: str) -> bytes:
    """Return what is at a URL that the API gave."""
    return await file_at(client, url).read()


async def test_signed_urls_arrive_byte_for_byte() -> None:
    """A URL from the API is used as it is, never quoted anew or unquoted."""
    with Wire(answer(200, b"x")) as wire:
        async with client_of(wire) as client:
            assert await read_from(client, wire.url + SIGNED) == b"x"
        assert wire.requests[0].line == f"GET {SIGNED} HTTP/1.1"


async def test_redirects_to_signed_urls_arrive_byte_for_byte() -> None:
    """A signed URL survives a redirect, too."""
    with Wire(answer(200, b"x")) as delivery, Wire(redirect(delivery.url + SIGNED)) as wire:
        async with client_of(wire) as client:
            assert await read_from(client, f"{wire.url}/file") == b"x"
        assert delivery.requests[0].target == SIGNED


SAFE = "abcXYZ019-._~!$&'()*+,;=:@"
segment = st.one_of(
    st.text(SAFE, max_size=8),
    st.sampled_from(
        ["%2F", "%2f", "%3A", "%25", "%20", "%00", "%FF", "..", ".", "%2e%2e", "a%2", "%"]
    ),
)
targets = st.builds(
    lambda path, query: "/" + "/".join(path) + ("?" + query if query is not None else ""),
    st.lists(segment, max_size=6).filter(lambda path: not path or path[0] != ""),
    # yarl has no empty query: "/?" becomes "/".
    st.none()
    | st.lists(segment | st.sampled_from(["?", "/", "&", "="]), max_size=6)
    .map("".join)
    .filter(bool),
)


def test_urls_of_any_kind_arrive_unchanged() -> None:
    """Path and query of a URL from the API arrive as they were given, dots and bad escapes included."""
    with Wire(answer(200, b"x", keep=True)) as wire, asyncio.Runner() as runner:
        client = client_of(wire)

        @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(targets)
        def check(target: str) -> None:
            assert runner.run(read_from(client, wire.url + target)) == b"x"
            assert wire.requests[-1].target == target

        check()
        runner.run(client.aclose())


# -- Seen --------------------------------------------------------------------------------------


async def test_trace_configs_see_the_requests() -> None:
    """Trace configs of aiohttp pass through."""
    seen: list[str] = []
    trace = aiohttp.TraceConfig()

    async def begun(_: object, __: object, params: aiohttp.TraceRequestStartParams) -> None:
        seen.append(f"{params.method} {params.url.path}")

    trace.on_request_start.append(begun)
    with Wire(GOOD) as wire:
        async with client_of(wire, trace_configs=[trace]) as client:
            await client.accounts.current()
    assert seen == ["GET /v1/account"]


async def test_requests_are_logged_at_debug_only(caplog: pytest.LogCaptureFixture) -> None:
    """Each request is one line at DEBUG; INFO tells what was created and finished, and no more."""
    running = {**PREDICTION, "status": "processing", "completed_at": None}
    with Wire(json(running, 201), *[json(running)] * 10, json(PREDICTION)) as wire:
        async with client_of(wire, poll_interval=0.001) as client:
            with caplog.at_level(logging.DEBUG, "replicate_async"):
                await client.run(VERSION, {"text": "a"}, wait=False)
        lines = [r for r in caplog.records if r.name.startswith("replicate_async")]
        debug = [r.getMessage() for r in lines if r.levelno == logging.DEBUG]
        info = [r.getMessage() for r in lines if r.levelno >= logging.INFO]
        for request in wire.requests:
            path = f"{request.method} {wire.url}{request.path}"
            assert sum(line.startswith(path) for line in debug) == sum(
                r.line == request.line for r in wire.requests
            )
        assert len(info) == 2
        assert "created" in info[0]
        assert "succeeded" in info[1]
        assert all(PREDICTION["id"] in line for line in info)


async def test_repetitions_are_counted() -> None:
    """`stats.retried` counts the attempts beyond the first."""
    with Wire(STALL, BUSY["503"], GOOD) as wire:
        async with client_of(wire) as client:
            await client.accounts.current()
            assert client.stats.retried == 2


# -- The event loop ----------------------------------------------------------------------------


class Ticker:
    """Measures for how long at most the loop was held up."""

    def __init__(self) -> None:
        self.worst = 0.0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _tick(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.005)
            self.worst = max(self.worst, time.monotonic() - before - 0.005)


async def held_up(action: Callable[[], Awaitable[Any]]) -> float:
    """Return for how long an action holds up the loop: the best of ten, since machines are busy."""
    worst: list[float] = []
    while len(worst) < 10 and (not worst or min(worst) >= 0.25):
        async with Ticker() as ticker:
            await action()
        worst.append(ticker.worst)
    return min(worst)


async def test_large_answers_do_not_hold_up_the_loop() -> None:
    """An answer of 20 MiB, a file in the output, leaves the loop free."""
    output = "data:image/png;base64," + "A" * (20 * 2**20)
    body = jsonlib.dumps({**PREDICTION, "output": output}).encode()
    with Wire(answer(200, body)) as wire:
        async with client_of(wire) as client:
            assert await held_up(lambda: client.predictions.get(PREDICTION["id"])) < 0.25
            prediction = await client.predictions.get(PREDICTION["id"])
            assert len(prediction.output.url) == len(output)


async def test_large_inputs_do_not_hold_up_the_loop() -> None:
    """An input of 20 MiB, a file inside of the request, leaves the loop free and arrives whole."""
    content = bytes(range(256)) * (15 * 2**12)
    made = [json({**PREDICTION, "id": each}, 201) for each in "abcdefghij"]
    with Wire(*made) as wire:
        async with client_of(wire, file_encoding_strategy="base64") as client:
            order = {"image": content}
            assert await held_up(lambda: client.predictions.create(VERSION, order)) < 0.25
        assert len(wire.requests[0].json()["input"]["image"]) > 20 * 2**20 - 100
        assert "content-length" in wire.requests[0].headers


def test_quick_is_quick() -> None:
    """The retries of these tests make no pauses worth mentioning."""
    assert QUICK.backoff * QUICK.attempts < 0.1
