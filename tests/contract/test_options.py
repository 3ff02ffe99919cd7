"""Each option changes what goes over the wire, or what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs

import anyio
import pytest

import replicate_async
from replicate_async import Client, FileOutput, Limits, RateLimit, Retry, Timeout, exceptions
from replicate_async.exceptions import (
    AnswerTooLarge,
    MissingToken,
    NotFoundError,
    RateLimitError,
    TransportTimeout,
)
from replicate_async.testing import Emulator, RateLimits, Request

from .conftest import HELLO
from .faults import until


def _last(emulator: Emulator, operation: str) -> Request:
    return emulator.ledger.requests(operation=operation)[-1]


# -- Creating predictions ----------------------------------------------------------------------


async def test_polling_as_often_as_allowed(
    client: Client, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`poll_interval=0` polls at the pace of the rate limit, from the environment, too."""
    monkeypatch.setenv("REPLICATE_POLL_INTERVAL", "0")
    for each in (
        client.with_options(poll_interval=0),
        client.with_options(poll_interval=0.0),
        Client(emulator.token, base_url=emulator.url),
    ):
        before = len(emulator.ledger.requests(operation="predictions.get"))
        created = await each.predictions.create(
            model="emulator/sleeper", input={"seconds": 0.5, "steps": 1}
        )
        await created.wait()
        polls = len(emulator.ledger.requests(operation="predictions.get")) - before
        assert 5 <= polls <= 40
        if not each.is_view:
            await each.aclose()


@pytest.mark.parametrize(
    ("wait", "sent"),
    [
        (0, None),
        (0.5, None),
        (1.9, "wait=1"),
        (True, "wait"),
        (1, "wait=1"),
        (60, "wait=60"),
        (2.0, "wait=2"),
        (False, None),
        (None, None),
    ],
)
async def test_wait_is_a_preference(
    client: Client, emulator: Emulator, wait: bool | float | None, sent: str | None
) -> None:
    """`wait` of `create` becomes `Prefer`, and without it the answer comes at once."""
    prediction = await client.predictions.create(HELLO, {"text": "a"}, wait=wait)
    assert _last(emulator, "predictions.create").headers.get("Prefer") == sent
    assert (prediction.output == "hello a") is (sent is not None)


@pytest.mark.parametrize(("wait", "sent"), [(True, "wait"), (5, "wait=5"), (False, None)])
async def test_run_takes_wait(
    client: Client, emulator: Emulator, wait: bool | float, sent: str | None
) -> None:
    """`run` sends `Prefer` unless `wait` is False, and returns the final output in each case."""
    assert await client.run(HELLO, {"text": "a"}, wait=wait) == "hello a"
    assert _last(emulator, "predictions.create").headers.get("Prefer") == sent


@pytest.mark.parametrize(
    ("cancel_after", "seconds"),
    [
        (5, 5),
        (30, 30),
        (7.2, 8),
        ("30", 30),
        ("90s", 90),
        ("5m", 300),
        ("2h30m", 9000),
        ("1h30m45s", 5445),
        (timedelta(minutes=2), 120),
        (timedelta(seconds=5.5), 6),
    ],
)
async def test_cancel_after_is_a_deadline(
    client: Client, emulator: Emulator, cancel_after: float | str | timedelta, seconds: int
) -> None:
    """`cancel_after` in any form is `Cancel-After` in seconds, and the server sets the deadline."""
    async with Client(emulator.token, base_url=emulator.url, mark_creates=False) as plain:
        await plain.predictions.create(HELLO, {"text": "a"}, cancel_after=cancel_after)
    assert _last(emulator, "predictions.create").headers["Cancel-After"] == f"{seconds}s"
    prediction = await client.predictions.create(HELLO, {"text": "a"}, cancel_after=cancel_after)
    sent = int(_last(emulator, "predictions.create").headers["Cancel-After"].removesuffix("s"))
    assert seconds <= sent < max(1.1 * seconds, seconds + 4)  # its mark
    assert prediction.deadline is not None
    assert prediction.created_at is not None
    assert abs((prediction.deadline - prediction.created_at).total_seconds() - sent) < 0.1


async def test_no_deadline_without_marks(emulator: Emulator) -> None:
    """With neither marks, `cancel_after` nor `timeout` there is no `Cancel-After`; a timeout implies one."""
    client = Client(emulator.token, base_url=emulator.url, mark_creates=False)
    await client.run(HELLO, {"text": "a"})
    assert "Cancel-After" not in _last(emulator, "predictions.create").headers
    await client.run(HELLO, {"text": "a"}, timeout=20.5)
    assert _last(emulator, "predictions.create").headers["Cancel-After"] == "21s"
    await client.run(HELLO, {"text": "a"}, timeout=timedelta(seconds=1))
    assert _last(emulator, "predictions.create").headers["Cancel-After"] == "5s"
    await client.run(HELLO, {"text": "a"}, timeout=20, cancel_after="1h")
    assert _last(emulator, "predictions.create").headers["Cancel-After"] == "3600s"
    await client.aclose()


async def test_marks(client: Client, emulator: Emulator) -> None:
    """Each create without a deadline gets one of its own, of about a day."""
    sent = set()
    for _ in range(20):
        await client.run(HELLO, {"text": "a"})
        sent.add(
            int(_last(emulator, "predictions.create").headers["Cancel-After"].removesuffix("s"))
        )
    assert len(sent) == 20
    assert all(22 * 3600 <= seconds < 24 * 3600 for seconds in sent)


async def test_webhook(client: Client, emulator: Emulator) -> None:
    """`webhook` and its filter go into the body and come back."""
    prediction = await client.predictions.create(
        HELLO,
        {"text": "a"},
        webhook="https://example.com/hook?job=1",
        webhook_events_filter=("start", "output", "logs", "completed"),
    )
    assert _last(emulator, "predictions.create").json() == {
        "version": HELLO,
        "input": {"text": "a"},
        "webhook": "https://example.com/hook?job=1",
        "webhook_events_filter": ["start", "output", "logs", "completed"],
    }
    assert prediction.webhook == "https://example.com/hook?job=1"
    assert prediction.webhook_events_filter == ["start", "output", "logs", "completed"]


async def test_run_takes_webhooks(client: Client, emulator: Emulator) -> None:
    """`run` passes `webhook` and its filter on."""
    await client.run(
        HELLO,
        {"text": "a"},
        webhook="https://example.com/hook",
        webhook_events_filter=["completed"],
    )
    body = _last(emulator, "predictions.create").json()
    assert body["webhook"] == "https://example.com/hook"
    assert body["webhook_events_filter"] == ["completed"]


@pytest.mark.parametrize("stream", [True, False])
async def test_stream_is_passed_on(client: Client, emulator: Emulator, stream: bool) -> None:
    """The deprecated `stream` is sent as given."""
    await client.predictions.create(HELLO, {"text": "a"}, stream=stream)
    assert _last(emulator, "predictions.create").json()["stream"] is stream


async def test_what_is_not_given_is_not_sent(client: Client, emulator: Emulator) -> None:
    """Optional fields are omitted, never null; an input without anything is an empty object."""
    emulator.add_model("acme/plain", lambda: "x", official=True)
    await client.predictions.create(model="acme/plain")
    assert _last(emulator, "models.predictions.create").json() == {"input": {}}
    await client.models.create("acme", "new", visibility="public", hardware="cpu")
    assert _last(emulator, "models.create").json() == {
        "owner": "acme",
        "name": "new",
        "visibility": "public",
        "hardware": "cpu",
    }
    await client.models.update("acme/new", readme="# R")
    assert _last(emulator, "models.update").json() == {"readme": "# R"}
    assert await client.models.readme.get("acme/new") == "# R"
    await client.predictions.list()
    await client.models.list()
    assert _last(emulator, "predictions.list").query == ""
    assert _last(emulator, "models.list").query == ""


async def test_null_in_the_input_is_the_callers(client: Client, emulator: Emulator) -> None:
    """None inside of the input is sent as null: only options are omitted."""
    await client.predictions.create(HELLO, {"text": "a", "seed": None})
    assert _last(emulator, "predictions.create").json()["input"] == {"text": "a", "seed": None}


async def test_input_is_sent_as_json(client: Client, emulator: Emulator) -> None:
    """Tuples, sets, enumerations, dates, subclasses and non-ASCII text become plain JSON."""
    import enum

    class Size(enum.Enum):
        SMALL = "small"

    class Name(str):
        __slots__ = ()

    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    await client.predictions.create(
        HELLO,
        {
            "text": "naïve ☕",
            "pair": (1, 2.5),
            "one": {3},
            "size": Size.SMALL,
            "name": Name("n"),
            "when": moment,
            "nested": [{"deep": [True, None]}],
        },
    )
    request = _last(emulator, "predictions.create")
    assert request.json()["input"] == {
        "text": "naïve ☕",
        "pair": [1, 2.5],
        "one": [3],
        "size": "small",
        "name": "n",
        "when": moment.isoformat(),
        "nested": [{"deep": [True, None]}],
    }
    assert "naïve ☕".encode() in request.body


async def test_any_text_is_sent(client: Client) -> None:
    """Text comes back as it went, even half of a surrogate pair and control characters."""
    text = "\ud800 \x00 \u2028 \U0001f999"
    assert await client.run(HELLO, {"text": text}) == f"hello {text}"


# -- Listing and searching ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "sent"),
    [
        (datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC), "2026-03-04T05:06:07Z"),
        (
            datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=timezone(timedelta(hours=2))),
            "2026-03-04T03:06:07.000089Z",
        ),
        ("2026-03-04T05:06:07+01:00", "2026-03-04T05:06:07+01:00"),
        ("2026-03-04", "2026-03-04"),
    ],
)
@pytest.mark.parametrize("name", ["created_after", "created_before"])
async def test_list_filters_by_date(
    client: Client, emulator: Emulator, name: str, moment: datetime | str, sent: str
) -> None:
    """Dates of the filters are datetimes or ISO 8601 strings; a `+` survives the query."""
    if name == "created_after":
        await client.predictions.list(created_after=moment)
    else:
        await client.predictions.list(created_before=moment)
    assert parse_qs(_last(emulator, "predictions.list").query) == {name: [sent]}


async def test_naive_datetimes_are_local(client: Client, emulator: Emulator) -> None:
    """A datetime without a zone is local time, as everywhere in Python."""
    moment = datetime(2026, 3, 4, 5, 6, 7)  # noqa: DTZ001
    await client.predictions.list(created_after=moment)
    (sent,) = parse_qs(_last(emulator, "predictions.list").query)["created_after"]
    assert datetime.fromisoformat(sent) == moment.astimezone()


async def test_filters_reach_the_server(client: Client, emulator: Emulator) -> None:
    """`source` and the dates select."""
    web = emulator.add_prediction("replicate/hello-world", {}, source="web")
    emulator.add_prediction("replicate/hello-world", {})
    assert [p.id for p in await client.predictions.list(source="web")] == [web]
    assert len(await client.predictions.list()) == 2
    later = emulator.clock.now() + timedelta(hours=1)
    assert len(await client.predictions.list(created_after=later)) == 0


async def test_search_is_plain_text(client: Client, emulator: Emulator) -> None:
    """`models.search` sends the bare text as QUERY, in UTF-8 and without quotes."""
    await client.models.search("naïve hello")
    request = _last(emulator, "models.search")
    assert request.method == "QUERY"
    assert request.body == "naïve hello".encode()
    assert request.headers["Content-Type"].startswith("text/plain")


async def test_search_limit(client: Client, emulator: Emulator) -> None:
    """`search` sends `limit` only if it is given, and quotes the text."""
    await client.search("a&b=c d+é")
    assert parse_qs(_last(emulator, "search").query) == {"query": ["a&b=c d+é"]}
    await client.search("image", limit=50)
    assert parse_qs(_last(emulator, "search").query)["limit"] == ["50"]


# -- Files -------------------------------------------------------------------------------------


async def test_files_are_uploaded(client: Client, emulator: Emulator) -> None:
    """By default a file in the input is uploaded, and its URL stands in its place."""
    await client.predictions.create(HELLO, {"text": "a", "nested": [{"image": b"content"}]})
    sent = _last(emulator, "predictions.create").json()["input"]["nested"][0]["image"]
    (uploaded,) = await client.files.list()
    assert uploaded.urls.get == sent
    assert emulator.file_content(uploaded.id) == b"content"


@pytest.mark.parametrize("where", ["client", "view", "call"])
async def test_files_are_inlined(client: Client, emulator: Emulator, where: str) -> None:
    """`file_encoding_strategy="base64"` sends files inside of the request, for a client or a call."""
    for_call: Any = {}
    if where == "client":
        client = Client(emulator.token, base_url=emulator.url, file_encoding_strategy="base64")
    elif where == "view":
        client = client.with_options(file_encoding_strategy="base64")
    else:
        for_call = {"file_encoding_strategy": "base64"}
    async with client:
        await client.predictions.create(HELLO, {"text": "a", "image": b"content"}, **for_call)
    assert emulator.ledger.requests(operation="files.create") == []
    sent = _last(emulator, "predictions.create").json()["input"]["image"]
    assert sent == "data:application/octet-stream;base64,Y29udGVudA=="


@pytest.mark.parametrize("where", ["client", "view", "call", "create"])
async def test_outputs_stay_text(client: Client, emulator: Emulator, where: str) -> None:
    """`use_file_output=False` leaves file URLs as they are, for a client or a call."""
    ref, given = "emulator/painter", {"prompt": "x", "width": 64, "height": 64}
    assert all(isinstance(item, FileOutput) for item in await client.run(ref, given))
    if where == "client":
        plain = Client(emulator.token, base_url=emulator.url, use_file_output=False)
        async with plain:
            output = await plain.run(ref, given)
    elif where == "view":
        output = await client.with_options(use_file_output=False).run(ref, given)
    elif where == "call":
        output = await client.run(ref, given, use_file_output=False)
    else:
        created = await client.predictions.create(model=ref, input=given, use_file_output=False)
        output = (await created.wait()).output
    assert [type(item) for item in output] == [str]
    assert output[0].startswith(emulator.files_url)


# -- The client --------------------------------------------------------------------------------


async def test_headers(client: Client, emulator: Emulator) -> None:
    """`headers` are sent with each request; a view adds its own and leaves those of the client."""
    async with Client(
        emulator.token, base_url=emulator.url, headers={"X-One": "1", "X-Two": "1"}
    ) as client:
        view = client.with_options(headers={"X-Two": "2", "X-Three": "3"})
        await view.accounts.current()
        sent = _last(emulator, "account.get").headers
        assert [sent.get(f"X-{n}") for n in ("One", "Two", "Three")] == ["1", "2", "3"]
        await client.accounts.current()
        sent = _last(emulator, "account.get").headers
        assert [sent.get(f"X-{n}") for n in ("One", "Two", "Three")] == ["1", "1", None]


async def test_user_agent(emulator: Emulator) -> None:
    """`user_agent` replaces ours, in a client and in a view."""
    async with Client(emulator.token, base_url=emulator.url, user_agent="mine/1") as client:
        await client.accounts.current()
        assert _last(emulator, "account.get").headers["User-Agent"] == "mine/1"
        await client.with_options(user_agent="mine/2").accounts.current()
        assert _last(emulator, "account.get").headers["User-Agent"] == "mine/2"


async def test_token_may_rotate(emulator: Emulator) -> None:
    """A function is asked for the token of each request."""
    tokens = iter([emulator.token, emulator.add_account("other"), emulator.token])
    async with Client(lambda: next(tokens), base_url=emulator.url, rate_limit=False) as client:
        names = [(await client.accounts.current()).username for _ in range(3)]
    assert names == ["acme", "other", "acme"]


async def test_environment(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Token and base URL come from the environment; arguments win."""
    other = emulator.add_account("other")
    monkeypatch.setenv("REPLICATE_API_TOKEN", f"  {other}\n")
    monkeypatch.setenv("REPLICATE_BASE_URL", emulator.url)
    async with Client() as client:
        assert (await client.accounts.current()).username == "other"
        assert _last(emulator, "account.get").headers["Authorization"] == f"Bearer {other}"
        view = client.with_options(api_token=emulator.token)
        assert (await view.accounts.current()).username == "acme"
    monkeypatch.setenv("REPLICATE_BASE_URL", "http://127.0.0.1:9")
    async with Client(emulator.token, base_url=emulator.url) as client:
        assert (await client.accounts.current()).username == "acme"


async def test_token_is_read_when_it_is_needed(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client may be made before the environment has the token."""
    async with Client(base_url=emulator.url) as client:
        with pytest.raises(MissingToken):
            await client.accounts.current()
        monkeypatch.setenv("REPLICATE_API_TOKEN", emulator.token)
        assert (await client.accounts.current()).username == "acme"


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
async def test_base_url_spellings(emulator: Emulator, suffix: str) -> None:
    """A base URL may end in a slash, `/v1`, or both."""
    async with Client(emulator.token, base_url=emulator.url + suffix) as client:
        assert (await client.accounts.current()).username == "acme"
    (request,) = emulator.ledger.requests()
    assert request.path == "/v1/account"


async def test_default_base_url() -> None:
    """Without any setting it is Replicate's own."""
    assert repr(Client("t")) == "Client(base_url='https://api.replicate.com')"


async def test_default_client(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verbs and namespaces of the module are those of a client that the environment configures."""
    monkeypatch.setenv("REPLICATE_API_TOKEN", emulator.token)
    monkeypatch.setenv("REPLICATE_BASE_URL", emulator.url)
    monkeypatch.setattr("replicate_async._jobs.context._default", None)
    try:
        assert await replicate_async.run(HELLO, {"text": "a"}) == "hello a"
        assert (await replicate_async.accounts.current()).username == "acme"
        assert (await replicate_async.search("hello")).query == "hello"
        assert [page async for page in replicate_async.paginate(replicate_async.models.list)]
        assert replicate_async.models._context is replicate_async.files._context
    finally:
        await replicate_async.aclose()


async def test_closed_default_client(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing the default client settles what it runs. It can be used again, and by what holds its names."""
    monkeypatch.setattr("replicate_async._jobs.context._default", None)
    monkeypatch.setenv("REPLICATE_BASE_URL", "not a URL")
    await replicate_async.aclose()  # nothing was used, so nothing is read
    monkeypatch.setenv("REPLICATE_API_TOKEN", emulator.token)
    monkeypatch.setenv("REPLICATE_BASE_URL", emulator.url)
    emulator.add_model("acme/slow", slow, official=True)
    run, predictions = replicate_async.run, replicate_async.predictions
    for _ in range(2):
        task = asyncio.create_task(run("acme/slow", {"text": "a"}))
        await until(lambda: bool(emulator.ledger.running()))
        await replicate_async.aclose()
        assert emulator.ledger.running() == []
        with pytest.raises(exceptions.ClientClosed):
            await task
        assert await run(HELLO, {"text": "a"}) == "hello a"
        assert len([each async for each in predictions.list()]) >= 2
    await replicate_async.aclose()
    await replicate_async.aclose()


async def slow(text: str) -> str:
    """Take longer than any test."""
    await asyncio.sleep(60)
    return text


@contextlib.contextmanager
def _counted_polls(emulator: Emulator) -> Iterator[list[float]]:
    """Collect when a prediction was looked at."""
    times: list[float] = []
    yield times
    times += [request.at for request in emulator.ledger.requests(operation="predictions.get")]


@pytest.mark.parametrize("where", ["client", "view", "environment"])
async def test_poll_interval(
    client: Client, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """`poll_interval` (or REPLICATE_POLL_INTERVAL) fixes the pauses between two polls."""
    if where == "client":
        client = Client(emulator.token, base_url=emulator.url, poll_interval=0.02)
    elif where == "view":
        client = client.with_options(poll_interval=0.02)
    else:
        monkeypatch.setenv("REPLICATE_POLL_INTERVAL", "0.02")
        client = Client(emulator.token, base_url=emulator.url)
    with _counted_polls(emulator) as times:
        async with client:
            await client.run("emulator/sleeper", {"seconds": 0.6}, wait=False)
    # Adaptive pauses would be 0.1 s and more: 5 looks at most.
    assert 10 <= len(times) <= 31
    assert min(b - a for a, b in itertools.pairwise(times)) >= 0.018


async def test_adaptive_polling(client: Client, emulator: Emulator) -> None:
    """Without `poll_interval` the pauses follow the age of the prediction."""
    with _counted_polls(emulator) as times:
        await client.run("emulator/sleeper", {"seconds": 0.6}, wait=False)
    assert 3 <= len(times) <= 6
    assert times[1] - times[0] >= 0.1


async def test_retry(emulator: Emulator) -> None:
    """`retry` bounds the attempts; with one, the first refusal is final."""
    emulator.set_rate_limits(RateLimits(others=1, creates=1))
    options: Any = {"base_url": emulator.url, "rate_limit": False}
    async with Client(emulator.token, retry=Retry(attempts=1), **options) as client:
        await client.accounts.current()
        with pytest.raises(RateLimitError):
            await client.accounts.current()
        assert len(emulator.ledger.requests()) == 2
        assert client.stats.retried == 0


async def test_view_retries_as_it_says(client: Client) -> None:
    """`with_options(retry=...)` is of the view alone."""
    view = client.with_options(retry=Retry(attempts=1))
    assert view._context.transport.config.retry.attempts == 1
    assert client._context.transport.config.retry.attempts == Retry().attempts


@contextlib.asynccontextmanager
async def _silent(emulator: Emulator) -> AsyncIterator[None]:
    """Make the emulator hold answers back."""
    emulator.latency = 5.0
    try:
        yield
    finally:
        emulator.latency = 0.0


@pytest.mark.parametrize("timeout", [0.1, Timeout(read=0.1)])
async def test_timeout(emulator: Emulator, timeout: float | Timeout) -> None:
    """`timeout` bounds the silence of the server."""
    async with (
        _silent(emulator),
        Client(
            emulator.token, base_url=emulator.url, timeout=timeout, retry=Retry(attempts=1)
        ) as client,
    ):
        with pytest.raises(TransportTimeout):
            await client.accounts.current()


async def test_timeout_of_a_view(emulator: Emulator) -> None:
    """`with_options(timeout=...)` holds for the view."""
    async with (
        _silent(emulator),
        Client(emulator.token, base_url=emulator.url, retry=Retry(attempts=1)) as client,
    ):
        with pytest.raises(TransportTimeout):
            await client.with_options(timeout=0.1).accounts.current()


async def test_limits(emulator: Emulator) -> None:
    """`limits` bounds what may be held in memory."""
    async with Client(emulator.token, base_url=emulator.url, limits=Limits(answer=100)) as client:
        with pytest.raises(AnswerTooLarge) as caught:
            await client.models.list()
    assert caught.value.limit == 100


async def test_rate_limit(emulator: Emulator) -> None:
    """`rate_limit` holds requests back before the server refuses any; False switches that off."""
    emulator.set_rate_limits(None)
    async with Client(
        emulator.token, base_url=emulator.url, rate_limit=RateLimit(others=3, per=3)
    ) as client:
        for _ in range(4):
            await client.accounts.current()
        assert client.stats.waited == 1
        assert client.stats.waited_seconds > 0
    async with Client(emulator.token, base_url=emulator.url, rate_limit=False) as client:
        for _ in range(80):
            await client.accounts.current()
        assert client.stats.waited == 0


async def test_rate_limit_of_the_environment(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`REPLICATE_RATE_LIMIT` sets the limit of creates, unless `rate_limit` is given."""
    monkeypatch.setenv("REPLICATE_RATE_LIMIT", "1/60")
    async with Client(emulator.token, base_url=emulator.url) as client:
        await client.run(HELLO, {"text": "a"})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.run, HELLO, {"text": "b"})
            await until(lambda: client.stats.waiting == 1)
            tasks.cancel_scope.cancel()
        assert client.stats.waiting == 0
        assert client.stats.created == 1
    monkeypatch.setenv("REPLICATE_RATE_LIMIT", "150")
    Client(emulator.token, base_url=emulator.url, rate_limit=RateLimit())
    with pytest.raises(exceptions.ArgumentError, match="REPLICATE_RATE_LIMIT: expected creates"):
        Client(emulator.token, base_url=emulator.url)


async def test_views_share_connections(client: Client) -> None:
    """A view sends over the connections of its client, and closing either closes both."""
    from replicate_async.exceptions import ClientClosed

    view = client.with_options(headers={"X-View": "1"})
    await client.accounts.current()
    await view.accounts.current()
    assert view.stats is not client.stats
    await view.aclose()
    with pytest.raises(ClientClosed):
        await client.accounts.current()


async def test_stats(client: Client) -> None:
    """`stats` counts what was created, and what a cancellation has ended."""
    await client.run(HELLO, {"text": "a"})
    prediction = await client.predictions.create(model="emulator/sleeper", input={"seconds": 60})
    await prediction.cancel()
    assert (client.stats.created, client.stats.cancelled) == (2, 1)


async def test_errors_carry_what_the_server_said(client: Client) -> None:
    """An error has status, detail, method and URL of the request."""
    with pytest.raises(NotFoundError) as caught:
        await client.models.get("acme/none")
    assert caught.value.status == 404
    assert caught.value.detail == "Not found."
    assert caught.value.method == "GET"
    assert re.search(r"/v1/models/acme/none$", caught.value.url)


def test_body_is_compact_json() -> None:
    """JSON is written without spaces, in UTF-8."""
    from replicate_async._codec import encode_json

    value = {"a": [1, "é"], "b": None}
    assert (
        encode_json(value) == json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    )
