"""`request` reaches any endpoint; objects know their response; gateways have other paths."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from aiohttp import web

from replicate_async import Client, Retry, exceptions
from replicate_async.testing import Emulator, Fault, Reply

from .conftest import HELLO
from .faults import world


async def test_a_get(client: Client, emulator: Emulator) -> None:
    """It returns the JSON, with the response."""
    model = await client.request("GET", "/models/replicate/hello-world")
    assert model == (await client.models.get("replicate/hello-world")).to_dict()
    assert model.response.status == 200
    assert model.response.headers["content-type"].startswith("application/json")
    for copied in (pickle.loads(pickle.dumps(model)), copy.copy(model), copy.deepcopy(model)):
        assert copied == model
        assert type(copied) is type(model)
        assert copied.response is None
    (request, _) = emulator.ledger.requests(operation="models.get")
    assert request.headers["Authorization"] == f"Bearer {emulator.token}"


async def test_params_and_json(client: Client, emulator: Emulator) -> None:
    """Parameters and bodies are sent, and None is left out."""
    await client.request("get", "/predictions", params={"source": "web", "cursor": None})
    made = await client.request(
        "POST", "/predictions", json={"version": HELLO, "input": {"text": "a b&c"}}
    )
    assert made["input"] == {"text": "a b&c"}
    assert made.response.status == 201
    listed, created = emulator.ledger.requests()
    assert listed.query == "source=web"
    assert created.json()["input"] == {"text": "a b&c"}


async def test_text_and_nothing(client: Client, emulator: Emulator) -> None:
    """What is not JSON is text; an empty body is None."""
    emulator.add_model("acme/read", lambda: 1, readme="# Read")
    assert await client.request("GET", "/models/acme/read/readme") == "# Read"
    assert await client.request("HEAD", "/account") is None


async def test_errors(client: Client) -> None:
    """Errors are those of all calls."""
    with pytest.raises(exceptions.NotFoundError):
        await client.request("GET", "/models/acme/nothing")
    with pytest.raises(exceptions.AuthenticationError):
        await client.with_options(api_token="wrong").request("GET", "/account")


async def test_a_read_is_repeated() -> None:
    """A GET is repeated after a transient failure."""
    async with world() as here, here.client() as client:
        here.emulator.wire.inject(Reply(503), path="/v1/account", times=2)
        assert (await client.request("GET", "/account"))["type"]
        assert client.stats.retried == 2


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("fault", [Reply(503), Reply.raw(end="reset"), Fault.STALL_AFTER_EXECUTION])
async def test_what_may_be_done_is_not_repeated(method: str, fault: Any) -> None:
    """A request that may have had an effect is sent once."""
    async with world() as here, here.client() as client:
        injected = here.emulator.wire.inject(fault, path="/v1/some/*")
        with pytest.raises((exceptions.TransportError, exceptions.ReplicateError)):
            await client.request(method, "/some/thing", json={"a": 1})
        assert injected.happened == 1


async def test_a_post_that_was_refused_is_repeated() -> None:
    """A POST that the rate limit refused had no effect."""
    async with world() as here, here.client() as client:
        here.emulator.wire.inject(
            Fault.THROTTLE, path="/v1/predictions", times=1, seconds=0.01, announce="nothing"
        )
        made = await client.request(
            "POST", "/predictions", json={"version": here.version, "input": {"text": "a"}}
        )
        assert here.made_of("a") == [made["id"]]


@pytest.mark.parametrize(
    "path",
    [
        "https://evil.example/x",
        "//evil.example/x",
        "/\\evil.example",
        "account",
        "",
        "@evil.example/",
        "/../v2/x",
        "/models/../../x",
        "/models/%2e%2e/%2E%2E/x",
        "/models/%252e%252e/x",
        "/models/..%2f..%2fx",
        "/models/./x",
        "/models/a b",
        "/models/a\nb",
        "/models/ä",
        "/account#x",
        None,
        b"/account",
    ],
)
async def test_the_token_stays_inside(client: Client, emulator: Emulator, path: Any) -> None:
    """A path that leads elsewhere is refused."""
    with pytest.raises((exceptions.ArgumentError, exceptions.ArgumentTypeError)):
        await client.request("GET", path)
    assert emulator.ledger.requests() == []


@pytest.mark.parametrize(
    "options",
    [
        {"method": "BREW"},
        {"method": "GET /x"},
        {"method": None},
        {"params": {"a": ["b"]}},
        {"headers": {"a": "b\r\nc"}},
        {"headers": {"authorization": "Bearer x"}},
    ],
)
async def test_bad_arguments(client: Client, emulator: Emulator, options: Any) -> None:
    """Arguments are checked before anything is sent."""
    options = {"method": "GET", "path": "/account", **options}
    with pytest.raises((exceptions.ArgumentError, exceptions.ArgumentTypeError)):
        await client.request(options.pop("method"), options.pop("path"), **options)
    assert emulator.ledger.requests() == []


# -- response ----------------------------------------------------------------------------------


async def test_objects_know_their_response(client: Client) -> None:
    """Records, pages and their items have it, outside of equality, repr, copies and pickles."""
    made = await client.predictions.create(HELLO, {"text": "a"}, wait=True)
    again = await client.predictions.get(made.id)
    assert made.response is not None
    assert again.response is not None
    assert (made.response.status, again.response.status) == (201, 200)
    assert made.response.headers["date"]
    page = await client.models.list()
    account = await client.accounts.current()
    (hardware, *_) = await client.hardware.list()
    model = await client.models.get("replicate/hello-world")
    [found, *_] = (await client.search("hello")).models
    parts: list[Any] = [model.latest_version, model.default_example, found, found.model]
    parts += [listed.latest_version for listed in page if listed.latest_version is not None][:1]
    assert len(parts) == 5
    for made_of in (page, page[0], account, hardware, model, *parts):
        assert made_of.response is not None
        assert made_of.response.status == 200
    file = await client.files.create(b"abc", filename="a.txt")
    assert file.response is not None
    assert file.response.status == 201
    records: list[Any] = [again, account, hardware, page[0]]
    for each in records:
        assert "esponse" not in repr(each)
        assert "headers" not in repr(each)
        for copied in (pickle.loads(pickle.dumps(each)), copy.deepcopy(each)):
            assert copied == each
            assert copied.response is None
    assert "response" not in again.extra
    await made.reload()
    assert made.response.status == 200


async def test_request_ids(client: Client, emulator: Emulator) -> None:
    """The ID of a request is in a header."""

    async def middleware(request: Any, record: Any, answer: Any) -> web.StreamResponse:
        response: web.StreamResponse = await answer(request)
        response.headers["X-Request-Id"] = "abc"
        return response

    emulator.middlewares.append(middleware)
    account = await client.accounts.current()
    assert account.response is not None
    assert account.response.request_id == "abc"
    assert client.predictions.from_dict({"id": "a"}).response is None


# -- api_prefix --------------------------------------------------------------------------------


async def gateway(emulator: Emulator, prefix: str) -> tuple[web.AppRunner, str, list[str]]:
    """Serve the emulator's API below another path, and return what was requested there."""
    import aiohttp

    paths: list[str] = []

    async def forward(request: web.Request) -> web.Response:
        paths.append(request.raw_path)
        if not request.raw_path.startswith(prefix):
            return web.Response(status=404)
        url = f"{emulator.url}/v1{request.raw_path.removeprefix(prefix)}"
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in ("host", "content-length")
        }
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                request.method, url, data=await request.read(), headers=headers
            ) as answer,
        ):
            return web.Response(
                status=answer.status,
                body=await answer.read(),
                headers={"Content-Type": answer.headers.get("Content-Type", "text/plain")},
            )

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", forward)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}", paths


@pytest.mark.parametrize("by", ["argument", "environment"])
async def test_a_gateway_without_v1(
    emulator: Emulator, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All calls go below the gateway's path, pages included."""
    prefix = "/v1/ACCOUNT/GATEWAY/replicate"
    runner, url, paths = await gateway(emulator, prefix)
    options: dict[str, Any] = {}
    if by == "argument":
        options["api_prefix"] = ""
    else:
        monkeypatch.setenv("REPLICATE_API_PREFIX", "")
    try:
        async with Client(emulator.token, base_url=url + prefix, **options) as client:
            assert await client.run(HELLO, {"text": "a"}) == "hello a"
            models = [model async for model in client.models.list()]
            assert models
            await client.request("GET", "/account")
    finally:
        await runner.cleanup()
    assert paths
    assert all(path.startswith(prefix + "/") for path in paths)
    assert f"{prefix}/predictions" in paths


@pytest.mark.parametrize("prefix", ["v1", "//x", "/../x", "/v1?x", "/v 1", 1])
def test_bad_prefixes(prefix: Any) -> None:
    """A prefix is a path."""
    with pytest.raises((exceptions.ArgumentError, exceptions.ArgumentTypeError)):
        Client("t", api_prefix=prefix)


async def test_the_token_does_not_leave_the_gateway(emulator: Emulator) -> None:
    """At the origin of a gateway, others may be served: a redirect to there gets no token."""
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        if request.path.startswith("/mine/"):
            raise web.HTTPFound("/theirs/account")
        seen.append(request.headers.get("Authorization"))
        return web.json_response({"type": "user", "username": "a"})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/mine"
    try:
        async with Client("secret", base_url=url, api_prefix="", retry=Retry(attempts=1)) as client:
            await client.request("GET", "/account")
    finally:
        await runner.cleanup()
    assert seen == [None]
