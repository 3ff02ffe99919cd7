"""Arguments that cannot work are refused before anything is sent, by their name."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from replicate_async import Client
from replicate_async.exceptions import (
    ArgumentError,
    ArgumentTypeError,
    InvalidReference,
    MissingToken,
    ReplicateException,
    ValidationError,
)
from replicate_async.sync import Client as SyncClient
from replicate_async.testing import Emulator

from .conftest import HELLO

Call = Callable[[Any], Awaitable[Any]]
"""What is done with a client; not typed, since much of it is what type checkers forbid."""

SOME_INPUT = {"text": "a"}


# -- Tokens ------------------------------------------------------------------------------------

EVERYWHERE: list[Call] = [
    lambda c: c.run(HELLO, SOME_INPUT),
    lambda c: c.predictions.create(HELLO, {"image": b"would be uploaded"}),
    lambda c: c.trainings.create(
        f"acme/m:{HELLO}", {"images": b"would be uploaded"}, destination="acme/d"
    ),
    lambda c: c.predictions.get("abc"),
    lambda c: c.models.list(),
    lambda c: c.files.create(b"x"),
    lambda c: c.search("x"),
    lambda c: c.webhooks.default.secret(),
]


@pytest.mark.parametrize("call", EVERYWHERE)
@pytest.mark.parametrize("source", ["nowhere", "empty variable", "function"])
async def test_no_token(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, call: Call, source: str
) -> None:
    """Without a token nothing is sent, and the error says where one belongs."""
    if source == "empty variable":
        monkeypatch.setenv("REPLICATE_API_TOKEN", "  \n")
    token: Any = (lambda: None) if source == "function" else None
    async with Client(token, base_url=emulator.url) as client:
        with pytest.raises(MissingToken, match="REPLICATE_API_TOKEN") as caught:
            await call(client)
    assert isinstance(caught.value, ValueError)
    assert emulator.ledger.requests() == []


UNSENDABLE_TOKENS = ["r8_a\nb", "r8_a\r\nX-Evil: 1", "r8_a b", "r8_a\x00", "r8_é", "r8_a\x7f"]


@pytest.mark.parametrize("token", UNSENDABLE_TOKENS)
async def test_unsendable_tokens(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    """A token that cannot stand in a header is refused wherever it comes from, and is not shown."""
    with pytest.raises(ArgumentError, match="api_token") as caught:
        Client(token)
    errors = [caught.value]
    client = Client("good", base_url=emulator.url)
    with pytest.raises(ArgumentError, match="api_token") as caught:
        client.with_options(api_token=token)
    errors.append(caught.value)
    if "\x00" not in token:
        monkeypatch.setenv("REPLICATE_API_TOKEN", token)
    for given in (lambda: token, None if "\x00" not in token else lambda: token):
        async with Client(given, base_url=emulator.url) as client:
            with pytest.raises(ArgumentError, match="api_token") as caught:
                await client.accounts.current()
            errors.append(caught.value)
    assert not any("r8_a" in f"{error!r} {error}" for error in errors)
    assert {error.argument for error in errors} == {"api_token"}
    assert emulator.ledger.requests() == []


@pytest.mark.parametrize("token", [5, b"r8_x", ["r8_x"]])
async def test_tokens_of_other_types(emulator: Emulator, token: Any) -> None:
    """A token is a string or a function that returns one."""
    with pytest.raises(ArgumentTypeError, match="api_token"):
        Client(token)
    async with Client(lambda: token, base_url=emulator.url) as client:
        with pytest.raises(ArgumentTypeError, match="api_token"):
            await client.accounts.current()
    assert emulator.ledger.requests() == []


# -- Arguments of operations -------------------------------------------------------------------

BAD_REFERENCES = [
    "",
    "/",
    "owner",
    "owner/",
    "/name",
    "owner/name/more",
    "owner/name:",
    "owner/name:v:w",
    "owner /name",
    "owner/na me",
    "owner/name?x",
    "owner/name#x",
    "owner/%2e",
    "owner\\name",
    "../name",
    "owner/..",
    "owner/na\nme",
    "https://replicate.com/owner",
    "https://replicate.com/owner/name/nonsense",
    "https://example.com/owner/name",
    "https://replicate.com.example.com/owner/name",
    "a" * 63,
    "g" * 64,
]


@pytest.mark.parametrize("ref", BAD_REFERENCES)
async def test_malformed_references(client: Client, emulator: Emulator, ref: str) -> None:
    """What is no reference is refused by all that take one."""
    calls: list[tuple[str, Call]] = [
        ("ref", lambda c: c.run(ref, SOME_INPUT)),
        ("version", lambda c: c.predictions.create(ref, SOME_INPUT)),
        ("model", lambda c: c.predictions.create(model=ref, input=SOME_INPUT)),
        ("deployment", lambda c: c.predictions.create(deployment=ref, input=SOME_INPUT)),
        ("model", lambda c: c.models.get(ref)),
        ("model", lambda c: c.models.versions.list(ref)),
        ("model", lambda c: c.models.readme.get(ref)),
        ("deployment", lambda c: c.deployments.get(ref)),
        ("destination", lambda c: c.trainings.create(f"a/b:{HELLO}", {}, destination=ref)),
    ]
    for argument, call in calls:
        with pytest.raises(InvalidReference) as caught:
            await call(client)
        assert caught.value.argument == argument
        assert isinstance(caught.value, ValueError)
    assert emulator.ledger.requests() == []


ID_CALLS: list[tuple[str, Callable[[Any, str], Any]]] = [
    ("id", lambda c, given: c.predictions.get(given)),
    ("id", lambda c, given: c.predictions.cancel(given)),
    ("prediction", lambda c, given: c.predictions.wait(given)),
    ("id", lambda c, given: c.trainings.get(given)),
    ("id", lambda c, given: c.trainings.cancel(given)),
    ("slug", lambda c, given: c.collections.get(given)),
    # The IDs of files were seen in base64.
    ("id", lambda c, given: c.files.get(given)),
    ("id", lambda c, given: c.files.delete(given)),
]

FLAGS: list[Any] = [0, "no", b"x", []]
CHOICES: list[Any] = ["", [], {}, 5]

BAD_ARGUMENTS: list[tuple[str, type[Exception], Call]] = [
    # References of the wrong type
    ("ref", TypeError, lambda c: c.run(5)),
    ("ref", TypeError, lambda c: c.run(None)),
    ("model", TypeError, lambda c: c.models.get(5)),
    ("model", TypeError, lambda c: c.models.get(None)),
    ("model", TypeError, lambda c: c.models.get("owner", 5)),
    ("model", TypeError, lambda c: c.predictions.create(model=5)),
    # Ids
    ("id", ValueError, lambda c: c.predictions.get("")),
    ("id", ValueError, lambda c: c.predictions.get("a b")),
    ("id", ValueError, lambda c: c.predictions.get("..")),
    ("id", TypeError, lambda c: c.predictions.get(5)),
    ("id", ValueError, lambda c: c.predictions.cancel("\x00")),
    ("id", ValueError, lambda c: c.trainings.get("")),
    ("id", ValueError, lambda c: c.files.get(".")),
    *(
        (argument, ValueError, lambda c, call=call, given=given: call(c, given))
        for given in ("../x", "x/../y", "/x", "x/", "..\\x", "a//b")
        for argument, call in ID_CALLS
    ),
    *(
        (argument, ValueError, lambda c, call=call, given=given: call(c, given))
        for given in ("a/b", "x?y", "x#y", "https://replicate.com/p/x", "a%2Fb")
        for argument, call in ID_CALLS[:6]
    ),
    ("prediction", ValueError, lambda c: c.predictions.wait("")),
    ("slug", ValueError, lambda c: c.collections.get("")),
    # What to run
    ("version", ValueError, lambda c: c.predictions.create()),
    ("version", ValueError, lambda c: c.predictions.create(HELLO, {}, model="a/b")),
    ("version", ValueError, lambda c: c.predictions.create(model="a/b", deployment="a/b")),
    # wait
    *(
        ("wait", ValueError, lambda c, wait=wait: c.run(HELLO, SOME_INPUT, wait=wait))
        for wait in (61, 60.5, -1, -0.5, math.nan, math.inf)
    ),
    ("wait", TypeError, lambda c: c.run(HELLO, SOME_INPUT, wait="5")),
    ("wait", ValueError, lambda c: c.predictions.create(HELLO, SOME_INPUT, wait=99)),
    # cancel_after
    *(
        ("cancel_after", ValueError, lambda c, x=x: c.run(HELLO, SOME_INPUT, cancel_after=x))
        for x in (
            4,
            4.9,
            "4s",
            "",
            "5 m",
            "m",
            "-5m",
            "1d",
            "5m2h",
            timedelta(),
            math.nan,
            math.inf,
        )
    ),
    *(
        ("cancel_after", TypeError, lambda c, x=x: c.run(HELLO, SOME_INPUT, cancel_after=x))
        for x in (True, [5], b"5m")
    ),
    # timeout
    *(
        ("timeout", ValueError, lambda c, x=x: c.run(HELLO, SOME_INPUT, timeout=x))
        for x in (0, -1, math.nan, math.inf, timedelta(), timedelta(seconds=-1))
    ),
    ("timeout", TypeError, lambda c: c.run(HELLO, SOME_INPUT, timeout="5")),
    ("timeout", TypeError, lambda c: c.run(HELLO, SOME_INPUT, timeout=True)),
    ("timeout", ValueError, lambda c: c.predictions.wait("abc", timeout=0)),
    # Webhooks
    *(
        ("webhook", ValueError, lambda c, x=x: c.run(HELLO, SOME_INPUT, webhook=x))
        for x in ("http://example.com", "example.com", "", 5)
    ),
    (
        "webhook_events_filter",
        TypeError,
        lambda c: c.run(HELLO, SOME_INPUT, webhook_events_filter="start"),
    ),
    (
        "webhook_events_filter",
        ValueError,
        lambda c: c.run(HELLO, SOME_INPUT, webhook_events_filter=["end"]),
    ),
    # Input
    ("input", TypeError, lambda c: c.run(HELLO, "text")),
    ("input", TypeError, lambda c: c.run(HELLO, [1])),
    ("input", TypeError, lambda c: c.run(HELLO, {1: "a"})),
    ("input.a", TypeError, lambda c: c.run(HELLO, {"a": {"b": 1, None: 2}})),
    ("input.a[1].b", ValueError, lambda c: c.run(HELLO, {"a": [1, {"b": math.nan}]})),
    ("input.a", ValueError, lambda c: c.run(HELLO, {"a": -math.inf})),
    ("input.a[0]", TypeError, lambda c: c.run(HELLO, {"a": [object()]})),
    ("input.a", TypeError, lambda c: c.run(HELLO, {"a": Decimal(1)})),
    ("input.a", TypeError, lambda c: c.run(HELLO, {"a": lambda: 1})),
    ("input.a", TypeError, lambda c: c.run(HELLO, {"a": Client})),
    # Flags, and choices that are empty
    *(
        ("use_file_output", TypeError, lambda c, x=x: c.run(HELLO, SOME_INPUT, use_file_output=x))
        for x in FLAGS
    ),
    ("durable", TypeError, lambda c: c.run(HELLO, SOME_INPUT, durable=0)),
    ("durable", TypeError, lambda c: c.map(HELLO, [SOME_INPUT], durable="no").collect()),
    ("progress", TypeError, lambda c: c.run(HELLO, SOME_INPUT, progress="no")),
    ("progress", TypeError, lambda c: c.map(HELLO, [SOME_INPUT], progress=1).collect()),
    ("progress", TypeError, lambda c: c.output("data:,x").save("x", progress="no")),
    ("ordered", TypeError, lambda c: c.map(HELLO, [SOME_INPUT], ordered=1).collect()),
    ("redo", TypeError, lambda c: c.map(HELLO, [SOME_INPUT], redo=5).collect()),
    ("stream", TypeError, lambda c: c.predictions.create(HELLO, SOME_INPUT, stream=b"x")),
    *(
        (
            "file_encoding_strategy",
            ValueError,
            lambda c, x=x: c.run(HELLO, SOME_INPUT, file_encoding_strategy=x),
        )
        for x in CHOICES
    ),
    (
        "webhook_events_filter",
        TypeError,
        lambda c: c.run(HELLO, SOME_INPUT, webhook_events_filter={"start": True}),
    ),
    # Links and listings
    *(("cursor", TypeError, lambda c, x=x: c.predictions.list(x)) for x in (5, b"x?", object())),
    *(("listing", TypeError, lambda c, x=x: anext(c.paginate(x))) for x in (None, 5, "x", print)),
    # Texts
    *(
        (name, TypeError, lambda c, name=name: c.models.update("a/b", **{name: b"x"}))
        for name in ("description", "readme", "github_url", "paper_url", "weights_url")
    ),
    ("description", TypeError, lambda c: c.models.update("a/b", description=5)),
    ("content_type", TypeError, lambda c: c.files.create(b"x", content_type=5)),
    # Encoding
    (
        "file_encoding_strategy",
        ValueError,
        lambda c: c.run(HELLO, {"a": b""}, file_encoding_strategy="upload"),
    ),
    # Lists and searches
    ("created_after", ValueError, lambda c: c.predictions.list(created_after="yesterday")),
    ("created_before", TypeError, lambda c: c.predictions.list(created_before=5)),
    ("source", ValueError, lambda c: c.predictions.list(source="api")),
    ("sort_by", ValueError, lambda c: c.models.list(sort_by="name")),
    ("sort_direction", ValueError, lambda c: c.models.list(sort_direction="up")),
    ("query", ValueError, lambda c: c.models.search(" ")),
    ("query", TypeError, lambda c: c.models.search(5)),
    ("query", ValueError, lambda c: c.models.search("\ud800")),
    ("query", ValueError, lambda c: c.search("")),
    ("query", ValueError, lambda c: c.search("\ud800")),
    ("query", TypeError, lambda c: c.search(None)),
    *(
        ("limit", ValueError, lambda c, limit=limit: c.search("x", limit=limit))
        for limit in (0, 51, -1, 1.5, True, "5")
    ),
    # Models, deployments, trainings
    (
        "visibility",
        ValueError,
        lambda c: c.models.create("a", "b", visibility="secret", hardware="cpu"),
    ),
    ("model", ValueError, lambda c: c.models.create("a", "b/c", visibility="public", hardware="x")),
    *(
        (name, kind, lambda c, name=name, value=value: c.deployments.update("a/b", **{name: value}))
        for name, kind, value in (
            ("min_instances", ValueError, 6),
            ("min_instances", ValueError, -1),
            ("max_instances", ValueError, 21),
            ("max_instances", TypeError, True),
            ("max_instances", TypeError, "1"),
            ("version", ValueError, "a/b"),
        )
    ),
    ("version", ValueError, lambda c: c.deployments.update("a/b")),
    ("version", ValueError, lambda c: c.trainings.create(input={}, destination="a/b")),
    ("version", ValueError, lambda c: c.trainings.create("a/b", {}, destination="a/b")),
    ("model", ValueError, lambda c: c.trainings.create(HELLO, {}, destination="a/b")),
    ("destination", ValueError, lambda c: c.trainings.create(f"a/b:{HELLO}", {})),
    # Files
    ("filename", ValueError, lambda c: c.files.create(b"x", filename="é" * 128)),
    ("filename", ValueError, lambda c: c.files.create(b"x", filename="")),
    ("metadata", ValueError, lambda c: c.files.create(b"x", metadata={"a": math.nan})),
    ("metadata", ValueError, lambda c: c.files.create(b"x", metadata={"a": object()})),
    ("file", TypeError, lambda c: c.files.create(5)),
    ("file", ValueError, lambda c: c.files.create("no/such/file")),
    ("file", ValueError, lambda c: c.files.create(io.StringIO("text"))),
]


@pytest.mark.parametrize(
    ("argument", "kind", "call"),
    BAD_ARGUMENTS,
    ids=[f"{number}-{row[0]}" for number, row in enumerate(BAD_ARGUMENTS)],
)
async def test_bad_arguments(
    client: Client, emulator: Emulator, argument: str, kind: type[Exception], call: Call
) -> None:
    """The error names the argument, is a ValueError or TypeError too, and nothing was sent."""
    with pytest.raises(kind) as caught:
        await call(client)
    assert isinstance(caught.value, ArgumentError | ArgumentTypeError)
    assert caught.value.argument == argument
    assert str(caught.value).startswith(f"{argument}: ")
    assert emulator.ledger.requests() == []


def test_bad_arguments_of_the_facade(emulator: Emulator) -> None:
    """The facade refuses the same arguments, by the same names."""
    with SyncClient(emulator.token, base_url=emulator.url) as client:
        for argument, kind, call in BAD_ARGUMENTS:
            if argument == "listing":
                continue  # is awaited by its row
            with pytest.raises(kind) as caught:
                call(client)
            assert isinstance(caught.value, ArgumentError | ArgumentTypeError)
            assert caught.value.argument == argument
    assert emulator.ledger.requests() == []


async def test_unknown_options(client: Client, emulator: Emulator) -> None:
    """An option that does not exist is a TypeError, and nothing was sent."""
    calls: list[Callable[..., Any]] = [
        client.run,
        client.predictions.create,
        client.search,
        client.models.list,
        client.trainings.create,
        client.with_options,
        Client,
    ]
    for call in calls:
        with pytest.raises(TypeError, match="nonsense"):
            call("x", nonsense=1)
    assert emulator.ledger.requests() == []


async def test_nesting_that_has_no_end(client: Client, emulator: Emulator) -> None:
    """An input that contains itself is refused, not followed for ever."""
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ArgumentError) as caught:
        await client.run(HELLO, {"a": circle})
    assert caught.value.argument.startswith("input")
    assert emulator.ledger.requests() == []


# -- Files in the input ------------------------------------------------------------------------


def _closed() -> io.BytesIO:
    file = io.BytesIO(b"x")
    file.close()
    return file


@pytest.fixture
def bad_files(tmp_path: Path) -> Callable[[str], Any]:
    """Return a maker of files that cannot be sent."""

    def make(kind: str) -> Any:
        huge = tmp_path / "huge.bin"
        with huge.open("wb") as file:
            os.truncate(file.fileno(), 100 * 2**20 + 1)
        match kind:
            case "missing":
                return tmp_path / "missing.png"
            case "directory":
                return tmp_path
            case "closed":
                return _closed()
            case "text":
                return io.StringIO("text")
            case "huge":
                return huge
        raise AssertionError(kind)

    return make


@pytest.mark.parametrize("strategy", ["url", "base64"])
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", "missing.png"),
        ("directory", "cannot be read"),
        ("closed", "closed"),
        ("text", "'rb'"),
        ("huge", "100 MiB"),
    ],
)
async def test_bad_files(
    client: Client,
    emulator: Emulator,
    bad_files: Callable[[str], Any],
    kind: str,
    said: str,
    strategy: Any,
) -> None:
    """A file that cannot be sent is named by its place in the input; no other file was uploaded."""
    with pytest.raises(ArgumentError) as caught:
        await client.run(
            HELLO,
            {"images": [b"good", "https://example.com/x.png", bad_files(kind)]},
            file_encoding_strategy=strategy,
        )
    assert caught.value.argument == "input.images[2]"
    assert said in str(caught.value)
    assert emulator.ledger.requests() == []


async def test_text_mode(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """A file that is open in text mode is refused, and the message says how to open it."""
    path = tmp_path / "a.txt"
    path.write_text("a")
    with path.open() as file, pytest.raises(ArgumentError, match="'rb'") as caught:
        await client.run(HELLO, {"deep": {"file": file}})
    assert caught.value.argument == "input.deep.file"
    assert emulator.ledger.requests() == []


async def test_strings_are_never_paths(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """A string is sent as it is, even if a file has that name."""
    path = tmp_path / "a.txt"
    path.write_text("secret")
    await client.predictions.create(HELLO, {"text": str(path)})
    (request,) = emulator.ledger.requests()
    assert request.json()["input"] == {"text": str(path)}


async def test_paths_as_strings_are_recognised(
    client: Client, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the API refuses a string that is the path of a file, the error says how to send the file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "cat.png").write_bytes(b"x")
    calls: list[Call] = [
        lambda x: client.run("emulator/describer", {"image": x}),
        lambda x: client.predictions.create(model="emulator/describer", input={"image": x}),
        lambda x: client.stream("emulator/describer", {"image": x}).__anext__(),
    ]
    for path in ("cat.png", "./cat.png", str(tmp_path / "cat.png"), "~/cat.png"):
        for call in calls:
            with pytest.raises(ValidationError, match="422") as caught:
                await call(path)
            assert f"input.image: {path!r} is the path of a file" in str(caught.value)
            instead = f"pathlib.Path({path!r})"
            instead += ".expanduser()" if "~" in path else ""
            assert str(caught.value).endswith(f"pass {instead}")
            assert caught.value.hint == str(caught.value).rpartition("\n")[2]
    with pytest.raises(ValidationError, match=r"input\.image\.deep\[0\]: 'cat\.png' is the path"):
        await client.run("emulator/describer", {"image": {"deep": ["cat.png"]}})
    [outcome] = await client.map("emulator/describer", [{"image": "cat.png"}]).collect()
    assert "pathlib.Path('cat.png')" in str(outcome.error)
    for other in ("missing.png", str(tmp_path), "a\0b", "x" * 5000):
        with pytest.raises(ValidationError) as caught:
            await client.run("emulator/describer", {"image": other})
        assert caught.value.hint is None
    with pytest.raises(ValidationError) as caught:  # the path is in an input that is right
        await client.run("emulator/painter", {"prompt": "cat.png", "width": "wide"})
    assert caught.value.hint is None
    assert emulator.ledger.requests(operation="files.create") == []


# -- Options of the client ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("base_url", {"base_url": "example.com"}),
        ("base_url", {"base_url": "ftp://example.com"}),
        ("base_url", {"base_url": "https://"}),
        ("base_url", {"base_url": "https://example.com?x=1"}),
        ("timeout", {"timeout": 0}),
        ("timeout", {"timeout": math.nan}),
        ("timeout", {"timeout": "5"}),
        ("poll_interval", {"poll_interval": math.nan}),
        ("poll_interval", {"poll_interval": False}),
        ("poll_interval", {"poll_interval": -1}),
        ("file_encoding_strategy", {"file_encoding_strategy": "upload"}),
        ("headers", {"headers": {"X": "a\r\nY: b"}}),
        ("headers", {"headers": {"X Y": "a"}}),
        ("headers", {"headers": {"X": 5}}),
        ("headers", {"user_agent": "a\nb"}),
        ("retry", {"retry": 5}),
        ("use_file_output", {"use_file_output": "no"}),
        ("on_ambiguous", {"on_ambiguous": ""}),
        ("file_encoding_strategy", {"file_encoding_strategy": ""}),
        ("api_token", {"api_token": b"t"}),
    ],
)
def test_bad_options(argument: str, options: dict[str, Any]) -> None:
    """Impossible options are refused when the client is made, and by `with_options`."""
    with pytest.raises(ReplicateException) as caught:
        Client(**{"api_token": "t", **options})
    assert isinstance(caught.value, ArgumentError | ArgumentTypeError)
    assert caught.value.argument == argument
    if "base_url" not in options:
        with pytest.raises(ReplicateException, match=argument):
            Client("t").with_options(**options)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("limits", 5),
        ("rate_limit", 600),
        ("rate_limit", True),
        ("mark_creates", 1),
        ("trace_configs", 5),
        ("trace_configs", [5]),
        ("session", "x"),
        ("ssl", 5),
        ("proxy", {"https": "http://127.0.0.1:1"}),
    ],
)
def test_options_of_other_types(argument: str, value: Any) -> None:
    """Options of a wrong type are refused by their names, by both clients."""
    given: dict[str, Any] = {argument: value}
    with pytest.raises(ArgumentTypeError, match=f"^{argument}: "):
        Client("t", **given)
    if argument != "session":  # which the facade does not take
        with pytest.raises(ArgumentTypeError, match=f"^{argument}: "):
            SyncClient("t", **given)


@pytest.mark.parametrize("said", ["fast", "-1", "nan"])
def test_bad_poll_interval_of_the_environment(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """A REPLICATE_POLL_INTERVAL that is no time is refused."""
    monkeypatch.setenv("REPLICATE_POLL_INTERVAL", said)
    with pytest.raises(ArgumentError, match=r"(?i)poll_interval"):
        Client("t")


def test_options_that_belong_to_a_session() -> None:
    """Who brings a session sets proxy, TLS and traces there."""
    session: Any = object()
    cases: list[dict[str, Any]] = [
        {"proxy": "http://127.0.0.1:9"},
        {"ssl": False},
        {"trace_configs": [object()]},
    ]
    for options in cases:
        with pytest.raises(ArgumentError, match="session"):
            Client("t", session=session, **options)
