"""The token: only the API sees it, and nobody reads it."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from replicate_async import Client, FileOutput, Retry, Timeout, exceptions

from .wire import (
    ACCOUNT,
    FAULTS,
    PREDICTION,
    TOKEN,
    Request,
    Wire,
    answer,
    client_of,
    file_at,
    json,
    problem,
    redirect,
)

ONCE_MORE = Retry(attempts=2, backoff=0.001, throttled=0.01)
SECRET_HEADER = {"X-Gateway-Secret": "hunter2-of-the-gateway"}


def shows_nothing(request: Request) -> bool:
    """Tell whether a request to somebody else is free of what belongs to the API."""
    text = f"{request.line}{dict(request.headers)}{request.body!r}"
    return TOKEN not in text and "hunter2" not in text and "authorization" not in request.headers


async def test_the_token_goes_to_the_api() -> None:
    """Each request to the API has the token as a bearer, and the headers of the client."""
    with Wire(json(ACCOUNT)) as wire:
        async with client_of(wire, headers=SECRET_HEADER) as client:
            await client.accounts.current()
        assert wire.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
        assert wire.requests[0].headers["x-gateway-secret"] == SECRET_HEADER["X-Gateway-Secret"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_elsewhere_do_not_take_the_token_along(status: int) -> None:
    """A read follows a redirect to another origin, without token and without the client's headers."""
    with Wire(json(ACCOUNT)) as foreign, Wire(redirect(f"{foreign.url}/a", status)) as wire:
        async with client_of(wire, headers=SECRET_HEADER) as client:
            assert (await client.accounts.current()).username == "acme"
        assert [request.path for request in foreign.requests] == ["/a"]
        assert all(map(shows_nothing, foreign.requests))


async def test_redirects_elsewhere_take_nothing_of_a_request_along() -> None:
    """What the caller sends to any endpoint does not go to another host that the API names."""
    with Wire(json({})) as foreign, Wire(redirect(f"{foreign.url}/a")) as wire:
        async with client_of(wire) as client:
            headers = {"X-Secret": "hunter2"}
            await client.request("GET", "/a", headers=headers, json={"password": "hunter2"})
        assert "hunter2" in str(dict(wire.requests[0].headers))
        assert [request.path for request in foreign.requests] == ["/a"]
        assert all(map(shows_nothing, foreign.requests))


async def test_another_host_is_another_origin() -> None:
    """The same port under another name is somebody else."""
    with Wire(json(ACCOUNT)) as wire:
        wire.script = [redirect(f"http://localhost:{wire.port}/a"), *wire.script]
        async with client_of(wire) as client:
            await client.accounts.current()
        assert "authorization" in wire.requests[0].headers
        assert shows_nothing(wire.requests[1])


async def test_a_redirect_that_comes_back_does_not_get_the_token_again() -> None:
    """Another host that a read was redirected to cannot choose what is asked of the API with the token."""
    with Wire(json(ACCOUNT)) as wire, Wire(redirect(f"{wire.url}/v1/back")) as foreign:
        wire.script = [redirect(f"{foreign.url}/a"), *wire.script]
        async with client_of(wire, headers=SECRET_HEADER) as client:
            await client.accounts.current()
        assert [request.path for request in wire.requests] == ["/v1/account", "/v1/back"]
        assert all(map(shows_nothing, [*foreign.requests, wire.requests[1]]))


async def test_creates_are_not_sent_elsewhere() -> None:
    """A create that is redirected elsewhere shows neither token nor input there."""
    with Wire(json(PREDICTION, 201)) as foreign:
        steps = (redirect(f"{foreign.url}/a", 307), problem(403))

        with Wire(lambda request: steps[request.method != "POST"]) as wire:
            async with client_of(wire) as client:
                with pytest.raises(exceptions.TransportError):
                    await client.predictions.create(model="acme/greeter", input={"text": "secret"})
        assert foreign.requests == []


async def test_hosts_of_output_files_do_not_see_the_token() -> None:
    """Reading, iterating and redirected reading of a file sends no token to its host."""
    with Wire(answer(200, b"file")) as foreign, Wire(redirect(f"{foreign.url}/b")) as first:
        with Wire(json({**PREDICTION, "output": [f"{foreign.url}/a", f"{first.url}/r"]})) as wire:
            async with client_of(wire, headers=SECRET_HEADER) as client:
                prediction = await client.predictions.get(PREDICTION["id"])
                for file in prediction.output:
                    assert isinstance(file, FileOutput)
                    assert await file.read() == b"file"
                    assert [chunk async for chunk in file] == [b"file"]
        assert len(foreign.requests) == 4
        assert all(map(shows_nothing, foreign.requests + first.requests))


@pytest.mark.parametrize("path", ["/v1/files/x", "/v1/webhooks/default/secret", "/v1/account"])
async def test_a_model_does_not_borrow_the_token(path: str, tmp_path: Path) -> None:
    """An output that is a URL of the API is fetched without the token, however it is read."""
    with Wire(answer(200, b"file")) as wire:
        async with client_of(wire) as client:
            url = f"{wire.url}{path}"
            await file_at(client, url).read()
            await file_at(client, url).save(tmp_path / "file")
            async for _ in file_at(client, url):
                pass
        assert len(wire.requests) == 3
        assert not any("authorization" in request.headers for request in wire.requests)


async def test_a_redirect_to_the_api_does_not_get_the_token() -> None:
    """A foreign host that redirects to the API gets nothing that the token would open."""
    with Wire(answer(200, b"secret")) as wire:
        moved = answer(302, headers={"Location": f"{wire.url}/v1/webhooks/default/secret"})
        with Wire(moved) as foreign:
            async with client_of(wire) as client:
                await file_at(client, f"{foreign.url}/picture.png").read()
        for request in (*wire.requests, *foreign.requests):
            assert "authorization" not in request.headers


@pytest.mark.parametrize("userinfo", ["", "user:password@"])
async def test_links_to_next_pages_elsewhere_are_not_followed_there(userinfo: str) -> None:
    """A `next` link to another origin is followed at the API; the other origin sees nothing."""
    page = {"next": None, "previous": None, "results": [PREDICTION]}
    with Wire(json(page)) as foreign:
        link = f"http://{userinfo}127.0.0.1:{foreign.port}/v1/predictions?cursor=abc%3D"
        with Wire(json({**page, "next": link}), json(page)) as wire:
            async with client_of(wire) as client:
                found = [prediction async for prediction in client.predictions.list()]
            assert len(found) == 2
            assert wire.requests[1].target == "/v1/predictions?cursor=abc%3D"
        assert foreign.requests == []


@pytest.mark.parametrize("link", ["http://[", "http://127.0.0.1:port/", "//", "\ud800", "?"])
async def test_links_to_nowhere_do_not_break_a_page(link: str) -> None:
    """A `next` that is no URL costs the page nothing, or is an error of ours."""
    with Wire(
        json({"next": link, "previous": None, "results": [PREDICTION]}), problem(404)
    ) as wire:
        async with client_of(wire) as client:
            try:
                page = await client.predictions.list()
                assert len(page) == 1
                await page.next_page()
            except exceptions.ReplicateException:
                pass


# -- Nobody reads it ---------------------------------------------------------------------------


def told(error: BaseException) -> Iterator[str]:
    """Yield all that an exception, its causes and what they hold would tell in a log."""
    seen: list[BaseException] = []
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is None or current in seen:
            continue
        seen.append(current)
        yield str(current)
        yield repr(current)
        yield repr(current.args)
        if isinstance(current, exceptions.ReplicateException):
            yield repr(vars(current))
        pending += [current.__cause__, current.__context__]
    yield "".join(traceback.format_exception(error))
    yield repr(pickle.loads(pickle.dumps(error)).__dict__)


@pytest.mark.parametrize("name", FAULTS)
async def test_the_token_is_in_no_message(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever goes wrong, neither the error nor its causes nor the log tell the token."""
    with caplog.at_level(logging.DEBUG), Wire(FAULTS[name]) as wire:
        async with client_of(wire, timeout=Timeout(read=0.2), retry=ONCE_MORE) as client:
            with pytest.raises(exceptions.ReplicateException) as caught:
                await client.predictions.get("abc")
        assert wire.requests == [] or TOKEN in wire.requests[0].headers["authorization"]
    assert not [text for text in told(caught.value) if TOKEN in text]
    # asyncio's debug mode logs tasks by name, and that is ours to keep clean, too.
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("token", [f"{TOKEN}\n{TOKEN}", f"{TOKEN}\u00e9", f"{TOKEN} {TOKEN}"])
def test_a_bad_token_is_not_quoted(token: str) -> None:
    """The error for a token that cannot be sent does not show it."""
    with pytest.raises(exceptions.ArgumentError) as caught:
        Client(token)
    assert TOKEN not in "".join(told(caught.value))


async def test_the_token_is_in_no_repr() -> None:
    """Clients, namespaces and objects do not show the token of their client."""
    with Wire(json({**PREDICTION, "output": "https://example.test/f"})) as wire:
        async with client_of(wire) as client:
            prediction = await client.predictions.get(PREDICTION["id"])
            shown = [client, client.predictions, client.with_options(timeout=1), prediction]
            shown += [prediction.output, client._context.transport.config, client._context]
            assert not [value for value in shown if TOKEN in f"{value!r}{value!s}"]
            assert TOKEN.encode() not in pickle.dumps(prediction)
            assert TOKEN.encode() not in pickle.dumps(prediction.output)


async def test_signatures_of_urls_are_in_no_message(caplog: pytest.LogCaptureFixture) -> None:
    """The query of a URL, which may be a signature, is neither logged nor in messages."""
    with caplog.at_level(logging.DEBUG, "replicate_async"):
        for step in (FAULTS["garbage"], FAULTS["closed after reading"], problem(403)):
            with Wire(step) as delivery, Wire(redirect(f"{delivery.url}/f?sig=hunter2")) as wire:
                async with client_of(wire, retry=Retry(attempts=1)) as client:
                    with pytest.raises(exceptions.ReplicateException) as caught:
                        await client.accounts.current()
            assert "hunter2" not in str(caught.value)
    assert "hunter2" not in caplog.text
