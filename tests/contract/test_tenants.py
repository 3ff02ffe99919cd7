"""Views of a client for the tenants of an app, and admission to the queue of the rate limit."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import anyio
import pytest

from replicate_async import Client, RateLimit, exceptions
from replicate_async import sync as replicate_sync
from replicate_async.testing import Emulator

from .conftest import HELLO
from .faults import until


async def test_views_count_for_themselves(client: Client) -> None:
    """A view has its own stats; those of the client include them."""
    one = client.with_options(tags={"tenant": "a"})
    two = one.with_options(tags={"user": "b"})
    await client.run(HELLO, {"text": "a"})
    await one.run(HELLO, {"text": "a"})
    await two.run(HELLO, {"text": "a"})
    assert (client.stats.created, one.stats.created, two.stats.created) == (3, 2, 1)


async def test_leaving_a_view_closes_nothing(client: Client) -> None:
    """`async with` on a view leaves the client open."""
    async with client.with_options(tags={"tenant": "a"}) as view:
        assert view.is_view
        await view.run(HELLO, {"text": "a"})
    assert not client.is_view
    assert await client.run(HELLO, {"text": "a"}) == "hello a"
    assert await view.run(HELLO, {"text": "a"}) == "hello a"


async def test_views_share_connections(client: Client, emulator: Emulator) -> None:
    """A view for each request costs next to nothing: no connection, and little time."""
    began = time.thread_time()
    for number in range(2000):
        client.with_options(
            api_token=f"token{number}", tags={"tenant": "a"}, rate_limit=RateLimit(creates=5)
        )
    assert time.thread_time() - began < 2
    await client.accounts.current()
    view = client.with_options(api_token=emulator.token, tags={"tenant": "a"})
    await view.accounts.current()
    await client.aclose()
    with pytest.raises(exceptions.ClientClosed):
        await view.accounts.current()


@pytest.mark.parametrize("tags", ["a", {"a": 1}, {1: "a"}, [("a", "b")]])
async def test_bad_tags(client: Client, tags: Any) -> None:
    """Tags are names and values."""
    with pytest.raises(exceptions.ArgumentTypeError):
        client.with_options(tags=tags)


@pytest.mark.parametrize("max_queue", [-1, "2", True])
def test_bad_limits(max_queue: Any) -> None:
    """The longest wait is a number of seconds."""
    with pytest.raises(ValueError, match="max_queue"):
        RateLimit(max_queue=max_queue)


async def test_queue_full(emulator: Emulator) -> None:
    """What would wait longer than allowed is not sent, and knows when to come again."""
    limit = RateLimit(creates=2, per=4.0, max_queue=2.5)
    async with Client("queue-full", base_url=emulator.url, rate_limit=limit) as client:
        emulator.add_account("someone", token="queue-full")
        state = client.rate_limit
        assert state is not None
        assert (state.creates.remaining, state.creates.queued, state.creates.wait) == (2, 0, 0)
        for _ in range(2):
            await client.predictions.create(HELLO, {"text": "a"})
        tasks = [
            asyncio.create_task(client.predictions.create(HELLO, {"text": "b"})) for _ in range(5)
        ]
        await until(lambda: sum(task.done() for task in tasks) == 4)
        state = client.rate_limit
        assert state is not None
        assert state.creates.remaining == 0
        assert state.creates.queued == 1
        assert 3 < state.creates.wait < 5
        refused = [task for task in tasks if task.done()]
        assert len(refused) == 4
        for task in refused:
            error = task.exception()
            assert isinstance(error, exceptions.QueueFull)
            assert 0 < error.retry_after <= 2
        with anyio.fail_after(10):
            await asyncio.gather(*(task for task in tasks if task not in refused))
        assert len(emulator.ledger.created()) == 3


async def test_what_is_paid_for_waits(emulator: Emulator) -> None:
    """Requests about a prediction that exists wait, however full the queue is."""
    emulator.add_account("someone", token="waits")
    limit = RateLimit(creates=10, others=2, per=2.0, max_queue=0.01)
    async with Client(
        "waits", base_url=emulator.url, rate_limit=limit, poll_interval=0.05
    ) as client:
        output = await client.run("emulator/sleeper", {"seconds": 1}, wait=False)
        assert output is not None
        made = await client.predictions.create(HELLO, {"text": "a"})
        await asyncio.gather(*(made.reload() for _ in range(3)))
        with pytest.raises(exceptions.QueueFull):
            await client.accounts.current()


async def test_map_waits(emulator: Emulator) -> None:
    """A fan-out waits for the limit, which is what it is for."""
    emulator.add_account("someone", token="maps")
    limit = RateLimit(creates=2, per=0.5, max_queue=0.01)
    async with Client("maps", base_url=emulator.url, rate_limit=limit) as client:
        outcomes = [one async for one in client.map(HELLO, [{"text": "a"}] * 6)]
    assert [one.error for one in outcomes] == [None] * 6


async def test_a_token_that_is_renewed_in_the_queue(emulator: Emulator) -> None:
    """A request that waits for the limits of its tags is sent with the token of that time."""
    emulator.add_account("someone", token="renewed")
    token = "expired"
    async with Client(lambda: token, base_url=emulator.url) as client:
        view = client.with_options(tags={"tenant": "a"}, rate_limit=RateLimit(others=1, per=0.5))
        with pytest.raises(exceptions.AuthenticationError):
            await view.accounts.current()
        waiting = asyncio.create_task(view.accounts.current())
        await until(lambda: view.stats.waiting)
        token = "renewed"
        assert (await waiting).username == "someone"


async def test_limits_of_tags(client: Client, emulator: Emulator) -> None:
    """The limits of one tenant do not hold up another one, nor the client."""
    limit = RateLimit(creates=1, per=60, max_queue=1)

    def view(tenant: str) -> Client:
        return client.with_options(tags={"tenant": tenant}, rate_limit=limit)

    await view("a").run(HELLO, {"text": "a"})
    with pytest.raises(exceptions.QueueFull):
        await view("a").run(HELLO, {"text": "a"})
    await view("b").run(HELLO, {"text": "a"})
    for _ in range(3):
        await client.run(HELLO, {"text": "a"})
    assert len(emulator.ledger.created()) == 5


async def test_tokens_have_nothing_in_common(client: Client, emulator: Emulator) -> None:
    """A view with another token has its own limits, and sees its own schemas."""
    emulator.add_account("other", token="other-token")
    view = client.with_options(
        api_token="other-token", rate_limit=RateLimit(creates=1, per=60, max_queue=1)
    )
    await view.use("emulator/painter").load()
    await client.use("emulator/painter").load()
    tokens = [
        request.headers["Authorization"]
        for request in emulator.ledger.requests(operation="models.get")
    ]
    assert len(set(tokens)) == 2
    await view.run(HELLO, {"text": "a"})
    with pytest.raises(exceptions.QueueFull):
        await view.run(HELLO, {"text": "a"})
    await client.run(HELLO, {"text": "a"})


async def test_tokens_of_one_function(emulator: Emulator) -> None:
    """What a model function has learnt with one token is not used with another that the client's function returns."""
    emulator.add_account("other", token="other-token")
    token = emulator.token
    async with Client(lambda: token, base_url=emulator.url) as client:
        hello = client.use("replicate/hello-world")
        for expected in (1, 0):
            for token in (emulator.token, "other-token"):
                before = len(emulator.ledger.requests())
                assert await hello(text="a") == "hello a"
                requests = emulator.ledger.requests()[before:]
                looked_up = [one for one in requests if one.operation == "models.get"]
                assert len(looked_up) == expected
                assert all(one.headers["Authorization"] == f"Bearer {token}" for one in requests)


def test_tokens_of_one_function_of_the_facade(emulator: Emulator) -> None:
    """The same with the sync twin."""
    emulator.add_account("other", token="other-token")
    token = emulator.token
    with replicate_sync.Client(lambda: token, base_url=emulator.url) as client:
        hello = client.use("replicate/hello-world")
        for other in (emulator.token, "other-token", emulator.token, "other-token"):
            token = other
            assert hello(text="a") == "hello a"
    looked_up = emulator.ledger.requests(operation="models.get")
    assert [one.headers["Authorization"] for one in looked_up] == [
        f"Bearer {emulator.token}",
        "Bearer other-token",
    ]


async def test_without_limits(emulator: Emulator) -> None:
    """A client without limits has none to tell of."""
    async with Client(emulator.token, base_url=emulator.url, rate_limit=False) as client:
        assert client.rate_limit is None
