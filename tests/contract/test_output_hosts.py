"""`Client(output_hosts=...)`: output files are fetched from these hosts only."""

from __future__ import annotations

import copy
import pickle
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yarl

from replicate_async import Client, FileOutput, exceptions, sync
from replicate_async._http.hosts import check_hosts, host_of, is_allowed
from replicate_async.testing import Emulator, OutputFile, Reply

from .wire import PREDICTION, Request, Wire, answer, client_of, json, redirect


@pytest.fixture
def filer(emulator: Emulator) -> str:
    """Return a model that makes a file, at 127.0.0.1."""

    @emulator.model("acme/filer", official=True)
    async def filer() -> OutputFile:
        return OutputFile(b"content", "out.txt", "text/plain")

    return "acme/filer"


def _client(emulator: Emulator, *hosts: str) -> Client:
    return Client(emulator.token, base_url=emulator.url, output_hosts=hosts)


def _fetches(emulator: Emulator) -> int:
    return sum(request.origin == "files" for request in emulator.ledger.requests())


async def _iterate(file: FileOutput) -> None:
    async for _ in file:
        pass


READS: dict[str, Callable[[FileOutput, Path], Any]] = {
    "read": lambda file, _: file.read(),
    "iterate": lambda file, _: _iterate(file),
    "save": lambda file, directory: file.save(directory / "file"),
    "unpickled": lambda file, _: pickle.loads(pickle.dumps(file)).read(),
    "copied": lambda file, _: copy.deepcopy(file).read(),
}


@pytest.mark.parametrize("how", READS)
@pytest.mark.parametrize("verb", ["run", "use", "map", "stream"])
async def test_hosts_that_are_not_allowed(
    emulator: Emulator, filer: str, tmp_path: Path, how: str, verb: str
) -> None:
    """Nothing is sent to them; the error names the host and the prediction."""
    async with _client(emulator, "replicate.delivery") as client:
        file = await _output(client, filer, verb)
        [prediction] = emulator.ledger.created()
        with pytest.raises(exceptions.HostNotAllowed) as caught:
            await READS[how](file, tmp_path)
    assert (caught.value.host, caught.value.prediction_id) == ("127.0.0.1", prediction.id)
    assert "127.0.0.1" in str(caught.value)
    assert prediction.id in str(caught.value)
    assert (_fetches(emulator), list(tmp_path.iterdir())) == (0, [])


async def _output(client: Client, model: str, verb: str) -> FileOutput:
    match verb:
        case "run":
            output = await client.run(model)
        case "use":
            output = await client.use(model)()
        case "map":
            [outcome] = await client.map(model, [{}]).collect()
            output = outcome.output
        case _:
            events = [event async for event in client.stream(model)]
            output = events[0].output
    assert isinstance(output, FileOutput)
    return output


async def test_saved_outputs(emulator: Emulator, filer: str, tmp_path: Path) -> None:
    """`run` and `map` save nothing from other hosts, and the prediction is not lost."""
    async with _client(emulator, "replicate.delivery") as client:
        with pytest.raises(exceptions.OutputNotSaved) as caught:
            await client.run(filer, save_to=tmp_path / "run")
        [outcome] = await client.map(filer, [{}], save_to=tmp_path / "map").collect()
    for error in (caught.value, outcome.error):
        assert isinstance(error, exceptions.OutputNotSaved)
        assert isinstance(error.failures[0], exceptions.HostNotAllowed)
        assert "127.0.0.1" in str(error)
    assert _fetches(emulator) == 0


async def test_hosts_that_are_allowed(emulator: Emulator, filer: str, tmp_path: Path) -> None:
    """They are fetched from, and data URIs are read whatever is allowed."""
    async with _client(emulator, "127.0.0.1") as client:
        file = await client.run(filer, save_to=tmp_path)
        assert await file.read() == await pickle.loads(pickle.dumps(file)).read() == b"content"
        data = FileOutput("data:,x", transport=client._context.transport)  # pyright: ignore[reportCallIssue]
        assert await data.read() == b"x"


async def test_redirects(tmp_path: Path) -> None:
    """A redirect from an allowed host to another one is not followed."""
    with Wire(answer(200, b"secret")) as inner:
        where = f"{inner.url.replace('127.0.0.1', 'localhost')}/meta-data"
        with Wire(redirect(where)) as files:
            output = f"{files.url}/picture.png"

            def made(request: Request) -> Reply:
                return json({**PREDICTION, "id": uuid.uuid4().hex, "output": output}, 201)

            with Wire(made) as wire:
                async with client_of(wire, output_hosts=["127.0.0.1"]) as client:
                    file = await client.run("acme/greeter")
                    with pytest.raises(exceptions.HostNotAllowed) as caught:
                        await file.read()
                    allowing = client.with_options(output_hosts=["127.0.0.1", "localhost"])
                    file = await allowing.run("acme/greeter")
                    assert await file.read() == b"secret"
                    same = client.with_options(timeout=5)
                    file = await same.run("acme/greeter")
                    with pytest.raises(exceptions.HostNotAllowed):
                        await file.read()
        assert (caught.value.host, len(inner.requests)) == ("localhost", 1)


async def test_uploaded_files_are_no_outputs(emulator: Emulator) -> None:
    """The content of an uploaded file comes from the API, which needs no entry."""
    async with _client(emulator) as client:
        file = await client.files.create(b"content", filename="x.txt")
        download = client.files.download(file.id, owner="acme", expiry=1, signature="x")
        with pytest.raises(exceptions.ReplicateException) as caught:
            await download.read()
    assert not isinstance(caught.value, exceptions.HostNotAllowed)


def test_in_the_facade(emulator: Emulator, filer: str, tmp_path: Path) -> None:
    """The sync client has the option, too."""
    with sync.Client(emulator.token, base_url=emulator.url, output_hosts=["x.test"]) as client:
        file = client.run(filer)
        with pytest.raises(exceptions.HostNotAllowed, match=emulator.ledger.created()[0].id):
            file.read()
        with pytest.raises(exceptions.HostNotAllowed):
            file.save(tmp_path)


@pytest.mark.parametrize(
    ("url", "hosts", "allowed"),
    [
        ("https://replicate.delivery/x", ["replicate.delivery"], True),
        ("https://Replicate.Delivery./x", ["REPLICATE.delivery."], True),
        ("https://replicate.delivery:8443/x", ["replicate.delivery"], True),
        ("https://replicate.delivery@evil.test/x", ["replicate.delivery"], False),
        ("https://evil.test/replicate.delivery", ["replicate.delivery"], False),
        ("https://evilreplicate.delivery/x", ["replicate.delivery"], False),
        ("https://replicate.delivery.evil.test/x", ["replicate.delivery"], False),
        ("https://a.example.com/x", ["*.example.com"], True),
        ("https://a.b.example.com/x", ["*.example.com"], True),
        ("https://example.com/x", ["*.example.com"], False),
        ("https://aexample.com/x", ["*.example.com"], False),
        ("https://.example.com/x", ["example.com"], False),
        ("https://xn--exmple-cua.com/x", ["exämple.com"], True),
        ("https://exämple.com/x", ["example.com", "*.com"], False),
        ("https://[::1]:8/x", ["[::1]"], True),
        ("https://[::1]/x", ["::1"], True),
        ("https://[::ffff:127.0.0.1]/x", ["127.0.0.1"], False),
        ("https://2130706433/x", ["127.0.0.1"], False),
        ("https://%3127.0.0.1/x", ["127.0.0.1"], False),
        ("https://replicate.delivery/x", [], False),
    ],
)
def test_which_hosts(url: str, hosts: list[str], allowed: bool) -> None:
    """An entry is one host, or all below a domain; the host is the one that the request goes to."""
    checked = check_hosts(hosts)
    assert checked is not None
    assert is_allowed(host_of(yarl.URL(url, encoded=True)), checked) is allowed


@pytest.mark.parametrize(
    "hosts",
    ["replicate.delivery", b"x", 5, [5], [""], ["*"], ["*."], ["a.*"], ["*.*.a"], ["a b"]]
    + [[f"https://{host}"] for host in ("a", "*.a")]
    + [["a:443"], ["a/b"], ["a?b"], ["a#b"], ["b@a"], ["[::1]:443"]],
)
def test_entries_that_are_no_hosts(hosts: Any) -> None:
    """They are refused at once, with an example."""
    errors = exceptions.ArgumentError, exceptions.ArgumentTypeError
    with pytest.raises(errors, match="output_hosts: expected"):
        Client("token", output_hosts=hosts)
    with pytest.raises(errors, match="output_hosts: expected"):
        Client("token").with_options(output_hosts=hosts)
