"""Pages: the first, the next, all of them, and links that are not what they should be."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from aiohttp import web

import replicate_async
from replicate_async import Client, Page, Prediction, Retry
from replicate_async.exceptions import ServerError, UnreadableAnswer
from replicate_async.testing import Emulator

from .conftest import HELLO, rewrite
from .wire import PREDICTION, Request, Step, Wire, client_of, json, problem


@pytest.fixture
def emulator() -> Any:
    """Run an emulator with small pages."""
    with Emulator(page_sizes={"predictions": 3, "models": 2, "collections": 2, "search": 2}) as it:
        yield it


@pytest.fixture
def ids(emulator: Emulator) -> list[str]:
    """Return the ids of seven predictions, newest first."""
    return [emulator.add_prediction("replicate/hello-world", {"n": n}) for n in range(7)][::-1]


async def test_first_page(client: Client, ids: list[str]) -> None:
    """`await` gives the first page: a sequence of what is on it, with its links."""
    page = await client.predictions.list()
    assert type(page) is Page
    assert [prediction.id for prediction in page] == ids[:3]
    assert [prediction.id for prediction in page.results] == ids[:3]
    assert len(page) == 3
    assert (page[0].id, page[-1].id) == (ids[0], ids[2])
    assert [prediction.id for prediction in page[1:]] == ids[1:3]
    assert page.next is not None
    assert page.next.startswith("http")
    assert page.previous is None
    with pytest.raises(IndexError):
        page[3]


async def test_next_page(client: Client, ids: list[str]) -> None:
    """`next_page` leads on, and ends with None."""
    first = await client.predictions.list()
    second = await first.next_page()
    assert second is not None
    assert [prediction.id for prediction in second] == ids[3:6]
    assert second.previous is not None
    third = await second.next_page()
    assert third is not None
    assert [prediction.id for prediction in third] == ids[6:]
    assert third.next is None
    assert await third.next_page() is None


async def test_all_items(client: Client, emulator: Emulator, ids: list[str]) -> None:
    """`async for` over the listing goes over all items of all pages, which are fetched as needed."""
    seen = []
    async for prediction in client.predictions.list():
        seen.append(prediction.id)
        # Seven items, three on a page: what is not needed yet is not asked for.
        asked = len(emulator.ledger.requests(operation="predictions.list"))
        assert asked == (len(seen) + 2) // 3
    assert seen == ids


async def test_auto_paging(client: Client, ids: list[str]) -> None:
    """`auto_paging_iter` goes over this and all later pages."""
    page = await client.predictions.list()
    assert [prediction.id async for prediction in page.auto_paging_iter()] == ids
    second = await page.next_page()
    assert second is not None
    assert [prediction.id async for prediction in second.auto_paging_iter()] == ids[3:]


async def test_an_iteration_goes_on_after_an_error() -> None:
    """A page that could not be fetched is not the end: the next step asks for it again."""

    def answers(request: Request) -> Step:
        number = len(wire.requests)
        if number == 2:
            return problem(500)
        following = f"{wire.url}/v1/predictions?cursor=2" if number == 1 else None
        return json({"results": [{**PREDICTION, "id": f"p{number}"}], "next": following})

    with Wire(answers) as wire:
        async with client_of(wire, retry=Retry(attempts=1)) as client:
            items = aiter(client.predictions.list())
            assert (await anext(items)).id == "p1"
            with pytest.raises(ServerError):
                await anext(items)
            assert (await anext(items)).id == "p3"
            with pytest.raises(StopAsyncIteration):
                await anext(items)


async def test_an_iteration_goes_on_where_it_was_left(client: Client, ids: list[str]) -> None:
    """`anext` and several loops over the same iterator share what there is."""
    items = (await client.predictions.list()).auto_paging_iter()
    seen = [(await anext(items)).id]
    async for prediction in items:
        seen.append(prediction.id)
        if len(seen) == 4:
            break
    seen += [prediction.id async for prediction in items]
    assert seen == ids
    with pytest.raises(StopAsyncIteration):
        await anext(items)


async def test_an_iteration_can_be_shared(
    client: Client, emulator: Emulator, ids: list[str]
) -> None:
    """Tasks that share an iterator fetch each page once, and get each item once."""
    items = aiter(client.predictions.list())
    seen: list[str] = []

    async def work() -> None:
        seen.extend([prediction.id async for prediction in items])

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(work)
    assert sorted(seen) == sorted(ids)
    assert len(emulator.ledger.requests(operation="predictions.list")) == 3


@pytest.mark.parametrize("how", ["method", "listing", "module"])
async def test_paginate(client: Client, ids: list[str], how: str) -> None:
    """`paginate` goes over the pages, from a method or from what it returned."""
    match how:
        case "method":
            pages = client.paginate(client.predictions.list)
        case "listing":
            pages = client.paginate(client.predictions.list(created_before="2100-01-01"))
        case _:
            from replicate_async.resources._pages import paginate

            pages = paginate(client.predictions.list)
    seen = [[prediction.id for prediction in page] async for page in pages]
    assert seen == [ids[:3], ids[3:6], ids[6:]]
    assert "paginate" in replicate_async.__all__


async def test_filters_go_along(client: Client, emulator: Emulator, ids: list[str]) -> None:
    """The filters of the first call hold for all pages: `next` is followed unchanged."""
    emulator.add_prediction("replicate/hello-world", {}, source="web")
    seen = [p.id async for p in client.predictions.list(source="web")]
    assert len(seen) == 1
    everything = client.predictions.list(created_after="2020-01-01T00:00:00+00:00")
    assert len([p async for p in everything]) == 8
    queries = [r.query for r in emulator.ledger.requests(operation="predictions.list")][2:]
    assert all("created_after=2020-01-01T00%3A00%3A00%2B00%3A00" in query for query in queries)


async def test_a_search_goes_on_as_it_began(client: Client, emulator: Emulator) -> None:
    """Later pages of a QUERY are QUERY requests with the same text."""
    for name in ("acme/one", "acme/two", "acme/three"):
        emulator.add_model(name, lambda: 1, description="purring")
    names = {model.name async for model in client.models.search("purring")}
    assert names == {"one", "two", "three"}
    requests = emulator.ledger.requests(operation="models.search")
    assert [(r.method, r.body) for r in requests] == [("QUERY", b"purring")] * 2


async def test_each_iteration_starts_anew(client: Client, ids: list[str]) -> None:
    """A listing may be used more than once."""
    listing = client.predictions.list()
    assert len([p async for p in listing]) == 7
    assert len([p async for p in listing]) == 7
    assert len(await listing) == 3


async def test_items_are_bound(client: Client, ids: list[str]) -> None:
    """What is on a page can make requests about itself."""
    (prediction, *_) = await client.predictions.list()
    assert type(prediction) is Prediction
    assert (await prediction.reload()).id == ids[0]


# -- Links that are not what they should be ----------------------------------------------------


def _with_next(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda page: {**page, "next": change(page["next"])}


@pytest.mark.parametrize("link", [None, "null", "", 5, ["x"], {}])
async def test_no_link(client: Client, emulator: Emulator, ids: list[str], link: Any) -> None:
    """What is no link is the end, the string `null` of the documentation's slip included."""
    rewrite(emulator, "predictions.list", _with_next(lambda _: link))
    page = await client.predictions.list()
    assert page.next is None
    assert await page.next_page() is None
    assert len([p async for p in client.predictions.list()]) == 3


async def test_missing_links(client: Client, emulator: Emulator, ids: list[str]) -> None:
    """A page without the keys `next` and `previous` is the only one."""
    rewrite(emulator, "predictions.list", lambda page: {"results": page["results"]})
    page = await client.predictions.list()
    assert (page.next, page.previous, len(page)) == (None, None, 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda link: link and link.replace("http:", "https:"),
        lambda link: link and link.partition("/v1/")[2],  # relative
        lambda link: link and "/v1/" + link.partition("/v1/")[2],
        lambda link: link and "//elsewhere.invalid/v1/" + link.partition("/v1/")[2],
        lambda link: link and "https://elsewhere.invalid/" + link.partition("/v1/")[2],
        lambda link: link and "http://127.0.0.1:1/v1/" + link.partition("/v1/")[2],
    ],
    ids=["scheme", "relative", "path", "no scheme", "host", "port"],
)
async def test_links_that_lead_elsewhere(
    client: Client, emulator: Emulator, ids: list[str], change: Callable[[Any], Any]
) -> None:
    """A link with another scheme or host is followed at the API's own origin."""
    rewrite(emulator, "predictions.list", _with_next(change))
    assert [p.id async for p in client.predictions.list()] == ids


@pytest.fixture
async def foreign() -> AsyncIterator[tuple[str, list[web.BaseRequest]]]:
    """Run a server of somebody else, which records what comes."""
    seen: list[web.BaseRequest] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        seen.append(request)
        return web.json_response({"next": None, "previous": None, "results": []})

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    yield f"http://127.0.0.1:{port}", seen
    await runner.cleanup()


async def test_foreign_hosts_are_never_asked(
    client: Client,
    emulator: Emulator,
    ids: list[str],
    foreign: tuple[str, list[web.BaseRequest]],
) -> None:
    """A link to another host sees no request, and so no token."""
    url, seen = foreign
    rewrite(
        emulator,
        "predictions.list",
        _with_next(lambda link: link and f"{url}/v1/{link.partition('/v1/')[2]}"),
    )
    assert [p.id async for p in client.predictions.list()] == ids
    page = await client.predictions.list()
    assert await page.next_page() is not None
    assert seen == []


async def test_a_link_to_the_same_page_is_the_end(
    client: Client, emulator: Emulator, ids: list[str]
) -> None:
    """A server that gives the same cursor again is not asked for ever."""
    first: list[str] = []

    def repeat(link: Any) -> Any:
        first.append(link)
        return first[0]

    rewrite(emulator, "predictions.list", _with_next(repeat))
    with anyio.fail_after(10):
        seen = [p.id async for p in client.predictions.list()]
    assert seen == ids[:6]


@pytest.mark.parametrize(
    "answer",
    [[], {}, {"results": None}, {"results": {}}, {"results": [5]}, {"results": [{}]}, None],
)
async def test_what_is_no_page(client: Client, emulator: Emulator, answer: Any) -> None:
    """An answer that is no page of such objects is an error with status, URL and the answer."""
    rewrite(emulator, "predictions.list", lambda _: answer)
    with pytest.raises(UnreadableAnswer) as caught:
        await client.predictions.list()
    assert caught.value.status == 200
    assert caught.value.url.endswith("/v1/predictions")


@pytest.mark.parametrize("answer", [{}, None, "x", [5], [{"name": "no sku"}]])
async def test_what_is_no_array(client: Client, emulator: Emulator, answer: Any) -> None:
    """A bare array that is none, or whose items are of another kind, is an error, too."""
    rewrite(emulator, "hardware.list", lambda _: answer)
    with pytest.raises(UnreadableAnswer):
        await client.hardware.list()


async def test_every_listing_pages(client: Client, emulator: Emulator) -> None:
    """Models, collections, versions, examples, deployments, files and trainings page as well."""
    names = [model.full_name async for model in client.models.list()]
    assert sorted(names) == sorted(name for name, _ in emulator.models())
    assert len({c.slug async for c in client.collections.list()}) > 4
    model = await client.models.get("replicate/hello-world")
    assert [v.id async for v in model.versions.list()] == [HELLO]
    assert [e.output async for e in model.examples.list()] == ["hello Alice"]
    assert [d async for d in client.deployments.list()] == []
    assert [f async for f in client.files.list()] == []
    assert [t async for t in client.trainings.list()] == []
