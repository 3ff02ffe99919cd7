"""The facade does what the client does that it wraps."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import gc
import importlib
import inspect
import io
import pickle
import pydoc
import shutil
import threading
import time
import traceback
import warnings
import weakref
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from PIL import Image

import replicate_async
from replicate_async import Retry, exceptions, sync
from replicate_async.sync import Client, FileOutput, Page, Prediction, SyncInAsyncWarning, Version
from replicate_async.sync._errors import boundary
from replicate_async.sync._streams import Held, Stream, file_stream
from replicate_async.testing import Emulator

from .conftest import loops, until

HELLO = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"


@pytest.fixture
def warn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget that the process was warned already."""
    monkeypatch.setattr("replicate_async.sync._portal._warned", False)


@pytest.fixture
def default(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let there be no default client before the test, and close that of the test."""
    monkeypatch.setattr("replicate_async.sync.client._default", None)
    yield
    sync.default_client().close()


# -- Calls and twins ---------------------------------------------------------------------------


def test_run(client: Client) -> None:
    """A run returns the output, as data."""
    assert client.run("replicate/hello-world", {"text": "Alice"}) == "hello Alice"


def test_module(default: None) -> None:
    """The module's verbs and namespaces are those of one default client."""
    assert sync.run("replicate/hello-world", {"text": "Alice"}) == "hello Alice"
    assert sync.models.get("replicate/hello-world").name == "hello-world"
    assert loops() == ["replicate_async.sync"]


def test_data_is_shared(client: Client) -> None:
    """Plain data are the same classes in both worlds, and so are errors."""
    assert type(client.accounts.current()) is replicate_async.Account
    assert sync.Account is replicate_async.Account
    assert sync.exceptions is replicate_async.exceptions
    with pytest.raises(replicate_async.ReplicateError):
        client.predictions.get("none")


def test_live_objects_have_twins(client: Client) -> None:
    """What makes requests comes back as a twin, also in fields, lists, pages and outputs."""
    model = client.models.get("replicate/hello-world")
    assert type(model) is sync.Model
    assert type(model.latest_version) is Version
    assert type(client.models.list()) is Page
    assert type(client.models.list()[0]) is sync.Model
    assert type(client.collections.get("official").models[0]) is sync.Model
    assert type(client.search("paint").models[0].model) is sync.Model
    [image] = client.run("emulator/painter", {"prompt": "x"})
    assert type(image) is FileOutput


def test_in_place(client: Client) -> None:
    """`wait`, `reload` and `cancel` change the prediction itself, and return it."""
    prediction = client.predictions.create(HELLO, {"text": "Bob"})
    assert prediction.wait() is prediction
    assert prediction.output == "hello Bob"
    assert prediction.reload() is prediction
    assert prediction.cancel() is prediction
    assert prediction.status == "succeeded"


def test_an_unknown_id(client: Client, emulator: Emulator) -> None:
    """An ID that does not exist is a NotFoundError at once, here, too."""
    for operation in (client.predictions.cancel, client.predictions.wait, client.trainings.cancel):
        with pytest.raises(exceptions.NotFoundError):
            operation("none")
    assert len(emulator.ledger.requests(status=404)) == 3


def test_twins_as_arguments(client: Client) -> None:
    """A twin can be passed where the async client wants the real thing, also within an input."""
    version = client.models.get("replicate/hello-world").versions.get(HELLO)
    assert client.predictions.create(version, {"text": "Bob"}, wait=True).output == "hello Bob"
    assert client.run(version, {"text": "Bob"}) == "hello Bob"
    prediction = client.predictions.create(version, {"text": "Bob"})
    assert client.predictions.wait(prediction).status == "succeeded"
    [image] = client.run("emulator/painter", {"prompt": "x", "width": 96, "height": 64})
    assert client.run("emulator/describer", {"image": image}).startswith(
        "PNG image, 96 x 64 pixels"
    )


def test_comparison_and_display(client: Client) -> None:
    """Twins of equal objects are equal, and look as the objects do."""
    one, two = client.models.get("emulator/painter"), client.models.get("emulator/painter")
    assert one == two
    assert one != client.models.get("emulator/writer")
    assert one != "emulator/painter"
    assert repr(one).startswith("Model(owner='emulator', name='painter'")
    [image] = client.run("emulator/painter", {"prompt": "x"})
    assert str(image) == image.url
    assert len({image, copy.copy(image)}) == 1


def test_records(client: Client) -> None:
    """What all records can, twins can."""
    prediction = client.predictions.create(HELLO, {"text": "Bob"})
    assert dict(prediction)["id"] == prediction.to_dict()["id"] == prediction.id
    assert prediction.extra == {}
    assert copy.deepcopy(prediction) == copy.copy(prediction) == prediction
    assert type(copy.deepcopy(prediction)) is Prediction


def test_pickling(client: Client, default: None) -> None:
    """Twins pickle as data, and belong to the sync default client then."""
    prediction = client.predictions.create(HELLO, {"text": "Bob"})
    again = pickle.loads(pickle.dumps(prediction))
    assert type(again) is Prediction
    assert again == prediction
    assert again.wait().output == "hello Bob"
    [image] = client.run("emulator/painter", {"prompt": "x"})
    assert pickle.loads(pickle.dumps(image)).read() == image.read()


@pytest.mark.parametrize("how", [pickle.dumps, copy.copy, copy.deepcopy])
def test_no_pickling(client: Client, how: Callable[[object], object]) -> None:
    """What holds connections or a place in a stream can be neither pickled nor copied, and says so."""
    painter = client.use("emulator/painter")
    prediction = client.predictions.create(HELLO, {"text": "Bob"})
    for thing in (
        client,
        client.models,
        client.models.list(),
        painter,
        painter.create(prompt="x"),
        client.use("emulator/writer", streaming=True),
        client.stream("emulator/writer", {"prompt": "x"}),
        client.map("replicate/hello-world", []),
        prediction.updates(),
    ):
        name = type(thing).__name__
        with pytest.raises(TypeError, match=f"^{name}: it cannot be pickled or copied; ") as caught:
            how(thing)
        assert isinstance(caught.value, exceptions.ArgumentTypeError)
    [outcome] = client.map("replicate/hello-world", [{"text": "Bob"}])
    assert pickle.loads(pickle.dumps(outcome)).output == copy.copy(outcome).output == "hello Bob"


def test_views(client: Client) -> None:
    """A view shares the connections, and closing it closes the client."""
    view = client.with_options(use_file_output=False)
    assert isinstance(view.run("emulator/painter", {"prompt": "x"})[0], str)
    view.close()
    with pytest.raises(exceptions.ClientClosed):
        client.accounts.current()


# -- Errors ------------------------------------------------------------------------------------


def test_traceback_ends_at_the_user(client: Client) -> None:
    """The traceback of an error of ours is one frame: the user's."""
    with pytest.raises(exceptions.NotFoundError) as caught:
        client.predictions.get("none")
    assert [each.name for each in traceback.extract_tb(caught.value.__traceback__)] == [
        "test_traceback_ends_at_the_user"
    ]


@pytest.fixture
def nowhere() -> Iterator[Client]:
    """Return a client of an API that is not there."""
    retry = Retry(backoff=0.001, max_backoff=0.001)
    with Client("t", base_url="http://127.0.0.1:9", retry=retry) as client:
        yield client


def test_folded_causes(client: Client, nowhere: Client, tmp_path: Path) -> None:
    """Causes whose texts are in the message are folded, and no frame of a library is shown."""
    calls: list[Callable[[], object]] = [
        lambda: nowhere.models.get("a/b"),
        lambda: nowhere.output("http://127.0.0.1:9/a.png").save(tmp_path),
        lambda: client.output("data:,x").save(tmp_path / "none" / "x"),
        lambda: client.run("emulator/painter", {"prompt": "x"}, save_to=tmp_path / "file" / "x"),
        lambda: client.run("emulator/describer", {"image": tmp_path / "none.png"}),
    ]
    (tmp_path / "file").write_bytes(b"")
    for call in calls:
        with pytest.raises(exceptions.ReplicateException) as caught:
            call()
        shown = "".join(traceback.format_exception(caught.value))
        assert [each.name for each in traceback.extract_tb(caught.value.__traceback__)] == [
            "test_folded_causes",
            "<lambda>",
        ]
        assert "direct cause" not in shown, shown
        assert "another exception occurred" not in shown


def test_causes_with_news(client: Client) -> None:
    """What the user's own code has raised is shown, also what was being handled."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise PermissionError("the disk is gone")

    with pytest.raises(exceptions.ArgumentError) as caught:
        client.run("emulator/describer", {"image": Broken(b"x")})
    assert isinstance(caught.value.__cause__, PermissionError)
    try:
        raise KeyError("mine")
    except KeyError:
        with pytest.raises(exceptions.ReplicateException) as during:
            client.run("", {})
    shown = "".join(traceback.format_exception(during.value))
    assert "KeyError: 'mine'" in shown


def test_traceback_of_streams(client: Client) -> None:
    """The same holds for iteration, with `next` and in a loop."""
    for step in (next, list):
        with pytest.raises(exceptions.ReplicateError) as caught:
            step(client.stream("acme/missing"))
        assert [each.name for each in traceback.extract_tb(caught.value.__traceback__)] == [
            "test_traceback_of_streams"
        ]


def test_traceback_of_defects(client: Client) -> None:
    """An unexpected error keeps its own frames, without those of the facade between."""

    async def defect() -> None:
        raise ZeroDivisionError

    call = boundary(client._lease.call)
    with pytest.raises(ZeroDivisionError) as caught:
        call(defect)
    names = [each.name for each in traceback.extract_tb(caught.value.__traceback__)]
    assert names == ["test_traceback_of_defects", "defect"]


def test_errors_leave_no_cycle(client: Client) -> None:
    """A caught error is freed without the garbage collector, and with it what it holds."""
    gc.collect()
    gc.disable()
    dead: weakref.ref[BaseException] | None = None
    try:
        try:
            client.predictions.get("none")
        except exceptions.NotFoundError as error:
            dead = weakref.ref(error)
        until(lambda: dead is not None and dead() is None)  # the loop lets go of it a moment later
    finally:
        gc.enable()


def _is_twin(value: object) -> bool:
    return type(value) is Prediction


def test_prediction_of_an_error(client: Client) -> None:
    """The prediction of an error is a twin, and so is that of a stream's error."""
    with pytest.raises(exceptions.ModelError) as caught:
        client.run("emulator/failer", {"error": "no"})
    assert _is_twin(caught.value.prediction)
    prediction: Any = caught.value.prediction
    assert prediction.reload().error == "no"
    with pytest.raises(exceptions.ModelError) as caught:
        list(client.stream("emulator/failer", {"error": "no"}))
    assert _is_twin(caught.value.prediction)


def test_module_of_exceptions() -> None:
    """The exceptions are the same objects in both worlds, whichever way they are imported."""
    import replicate_async.sync.exceptions
    from replicate_async.sync.exceptions import ModelError

    assert replicate_async.sync.exceptions is exceptions is sync.exceptions
    assert ModelError is exceptions.ModelError is sync.ModelError is replicate_async.ModelError


def test_base_exceptions(client: Client) -> None:
    """Not even a SystemExit ends the loop."""

    async def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        client._lease.call(leave)
    assert client.accounts.current().username == "acme"


def test_timeout(client: Client) -> None:
    """A timeout is that of the call, and the prediction is cancelled."""
    with pytest.raises(exceptions.RunTimeout) as caught:
        client.run("emulator/sleeper", {"seconds": 60}, timeout=0.3)
    assert caught.value.prediction.status == "canceled"


# -- The loop ----------------------------------------------------------------------------------


def test_closed(client: Client) -> None:
    """After closing there are errors, and no new thread. Closing twice is closing once."""
    client.accounts.current()
    client.close()
    client.close()
    with pytest.raises(exceptions.ClientClosed):
        client.accounts.current()
    with pytest.raises(exceptions.ClientClosed):
        next(client.stream("emulator/writer", {"prompt": "x"}))
    assert loops() == []


def test_an_api_that_is_not_there() -> None:
    """The error asks for the emulator, as in the async client."""
    with (
        Client("token", base_url="http://127.0.0.1:9", retry=Retry(attempts=1)) as client,
        pytest.raises(exceptions.ConnectError, match="Is the emulator running"),
    ):
        client.accounts.current()


def test_unused() -> None:
    """A client that did nothing has never started the thread."""
    with Client("t", base_url="http://127.0.0.1:9") as client:
        client.stream("emulator/writer", {"prompt": "x"})
        assert client.stats.created == 0
        assert loops() == []


def test_shared_loop(emulator: Emulator) -> None:
    """All clients share a loop, which ends with the last of them."""
    one, two = Client(), Client()
    one.accounts.current()
    two.accounts.current()
    assert loops() == ["replicate_async.sync"]
    one.close()
    assert two.accounts.current().username == "acme"
    two.close()
    assert loops() == []


def test_dropped(emulator: Emulator) -> None:
    """What a client has returned keeps it alive; with the last of it the thread ends, too."""
    [image] = Client().run("emulator/painter", {"prompt": "x"})
    gc.collect()
    assert image.read().startswith(b"\x89PNG")
    del image
    until(lambda: not loops())


def test_sixteen_threads(emulator: Emulator, client: Client) -> None:
    """Sixteen threads share a client, and do not wait for each other."""
    emulator.latency = 0.2
    started = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        runs = [pool.submit(client.accounts.current) for _ in range(16)]
        assert all(run.result().username == "acme" for run in runs)
    assert time.monotonic() - started < 2  # one after the other: 3.2
    assert loops() == ["replicate_async.sync"]


def test_many_at_once(client: Client) -> None:
    """Sixteen threads run, stream and read at the same time."""

    def work(number: int) -> int:
        text = "".join(str(e) for e in client.stream("emulator/writer", {"prompt": str(number)}))
        assert text
        assert client.run("replicate/hello-world", {"text": str(number)}) == f"hello {number}"
        [image] = client.run("emulator/painter", {"prompt": str(number), "width": 64, "height": 64})
        return len(b"".join(image))

    with ThreadPoolExecutor(16) as pool:
        assert all(size > 50 for size in pool.map(work, range(32)))


def test_start_and_stop_race(emulator: Emulator) -> None:
    """Clients that come and go in many threads get in nobody's way."""

    def use(_: int) -> None:
        for _ in range(10):
            with Client() as client:
                client.accounts.current()
                next(client.models.list().auto_paging_iter())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))
    assert loops() == []


def test_closing_ends_what_runs(emulator: Emulator) -> None:
    """Closing a client ends the calls and streams of other threads, and cancels their predictions."""
    client = Client()
    events = client.stream("emulator/sleeper", {"seconds": 60})
    errors: list[BaseException] = []

    def work(step: Any) -> None:
        try:
            step()
        except exceptions.ClientClosed as error:
            errors.append(error)
        except exceptions.LoopClosed as error:
            errors.append(error)

    threads = [
        threading.Thread(target=work, args=(step,))
        for step in (
            lambda: client.run("emulator/sleeper", {"seconds": 60}),
            lambda: list(events),
        )
    ]
    for thread in threads:
        thread.start()
    until(lambda: len(emulator.ledger.running()) == 2)
    client.close()
    for thread in threads:
        thread.join(10)
    assert len(errors) == 2
    assert len(emulator.ledger.cancelled()) == 2


def test_on_the_loop(client: Client) -> None:
    """On its own loop the facade raises, instead of waiting for itself."""

    async def mistake() -> None:
        client.accounts.current()

    async def another() -> None:
        next(client.stream("emulator/writer", {"prompt": "x"}))

    for wrong in (mistake, another):
        with pytest.raises(exceptions.WouldDeadlock, match="own event loop"):
            client._lease.call(wrong)


def test_callback_of_the_user(emulator: Emulator) -> None:
    """A token function runs on the loop: a call of the facade in it raises, and nothing hangs."""
    inner = Client(emulator.token, base_url=emulator.url)
    with inner, Client(lambda: inner.accounts.current().username, base_url=emulator.url) as client:
        inner.accounts.current()
        with pytest.raises(exceptions.WouldDeadlock):
            client.accounts.current()


def test_in_a_running_loop(client: Client, warn_again: None) -> None:
    """In a thread with an event loop it works, and warns once, at the user's line."""

    async def main() -> None:
        with pytest.warns(SyncInAsyncWarning, match="await") as caught:
            client.accounts.current()
        assert caught[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            client.accounts.current()
            assert list(client.stream("emulator/writer", {"prompt": "x"}))

    asyncio.run(main())


def test_packages_of_notebooks_do_not_hide_the_warning(client: Client, warn_again: None) -> None:
    """The warning is left out in a notebook, not where a package of notebooks was imported."""
    importlib.import_module("ipykernel.zmqshell")

    async def main() -> None:
        with pytest.warns(SyncInAsyncWarning):
            client.accounts.current()

    asyncio.run(main())


def test_streams_in_a_running_loop(client: Client, warn_again: None) -> None:
    """The warning for an iteration leads to the user's line, too."""

    async def main() -> None:
        with pytest.warns(SyncInAsyncWarning) as caught:
            next(client.stream("emulator/writer", {"prompt": "x"}))
        assert caught[0].filename == __file__

    asyncio.run(main())


VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


def test_context(client: Client) -> None:
    """Context variables of the caller are seen by the coroutine, also in streams."""

    async def read() -> str:
        await anyio.lowlevel.checkpoint()
        return VARIABLE.get()

    async def stream() -> AsyncIterator[str]:
        yield VARIABLE.get()
        yield VARIABLE.get()

    for value in ("one", "two"):
        token = VARIABLE.set(value)
        assert client._lease.call(read) == value
        assert list(Stream(client._lease, stream())) == [value, value]
        VARIABLE.reset(token)


def test_context_is_not_kept(emulator: Emulator) -> None:
    """The loop does not keep the context of whoever happened to start it."""

    async def seen() -> str:
        return VARIABLE.get()

    with Client() as client:
        token = VARIABLE.set("starter")
        client.accounts.current()
        VARIABLE.reset(token)
        assert client._lease.call(seen) == "unset"


# -- Streams, pages, files ---------------------------------------------------------------------


def test_stream(client: Client) -> None:
    """The events are those of the async client."""
    events = list(client.stream("emulator/writer", {"prompt": "x"}))
    assert [event.event for event in events[-2:]] == ["output", "done"]
    assert "".join(map(str, events))


def test_stream_is_lazy(emulator: Emulator, client: Client) -> None:
    """Nothing happens before the first event is asked for, nor without."""
    stream = client.stream("emulator/writer", {"prompt": "x"})
    stream.close()
    assert list(stream) == []
    del stream
    client.stream("emulator/writer", {"prompt": "x"})
    client.accounts.current()
    assert emulator.ledger.created() == []


@pytest.mark.parametrize("how", ["break", "close", "with", "collected"])
def test_leaving_a_stream(emulator: Emulator, client: Client, how: str) -> None:
    """A stream that is left cancels its prediction; `close` and `with` wait for it."""
    cancelled = emulator.ledger.cancelled()

    def leave() -> None:
        given = {"prompt": "x", "max_tokens": 2000}
        stream = client.stream("emulator/writer", given)
        match how:
            case "break":
                for _ in stream:
                    break
            case "close":
                next(stream)
                stream.close()
                assert len(emulator.ledger.cancelled()) == 1
            case "with":
                with stream as events:
                    next(events)
                assert len(emulator.ledger.cancelled()) == 1
                assert list(stream) == []
            case "collected":
                next(stream)
                cycle: list[Any] = [stream]
                cycle.append(cycle)

    assert cancelled == []
    leave()
    gc.collect()
    until(lambda: len(emulator.ledger.cancelled()) == 1)


def test_iterating_on(client: Client) -> None:
    """A loop that was left can be taken up again."""
    stream = client.stream("emulator/writer", {"prompt": "x"})
    first = [next(stream)]
    for event in stream:
        first.append(event)
        break
    assert len(first) == 2
    assert list(stream)[-1].event == "done"
    assert list(stream) == []


def test_stream_of_files(client: Client) -> None:
    """Files in events are twins."""
    events = list(client.stream("emulator/painter", {"prompt": "x"}))
    assert type(events[0].output) is FileOutput
    assert events[0].output.read().startswith(b"\x89PNG")


def test_prediction_of_a_stream(client: Client) -> None:
    """A stream tells its prediction, its end and its text."""
    stream = client.stream("emulator/writer", {"prompt": "x"})
    assert not _is_twin(stream.prediction)
    events = list(stream)
    assert _is_twin(stream.prediction)
    assert stream.done is events[-1]
    assert stream.text == "".join(map(str, events))


def test_one_task(client: Client) -> None:
    """All steps of an iteration, and its clean-up, happen in one task."""
    tasks: list[object] = []

    async def steps() -> AsyncIterator[int]:
        try:
            with anyio.CancelScope():  # can only be left by the task that entered it
                for number in range(3):
                    tasks.append(asyncio.current_task())
                    yield number
        finally:
            tasks.append(asyncio.current_task())

    assert list(Stream(client._lease, steps())) == [0, 1, 2]
    stream: Stream[int] = Stream(client._lease, steps())
    with stream as left:
        next(left)
    assert len(tasks) == 6
    assert len({id(task) for task in tasks}) == 2


def test_interrupted_step(client: Client) -> None:
    """A step that was cancelled leaves the clean-up free to use task groups."""
    cleaned: list[str] = []

    async def steps() -> AsyncIterator[int]:
        try:
            yield 0
            raise asyncio.CancelledError
        finally:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(0))
            cleaned.append("yes")

    stream: Stream[int] = Stream(client._lease, steps())
    next(stream)
    with pytest.raises(exceptions.ClientClosed):
        next(stream)
    assert cleaned == ["yes"]


def test_context_manager(client: Client) -> None:
    """An async context manager is entered and left in one task, and sees the block's error."""
    seen: list[object] = []

    @asynccontextmanager
    async def manager() -> AsyncIterator[str]:
        with anyio.CancelScope():
            try:
                yield "value"
            except KeyError as error:
                seen.append(error)

    with Held(client._lease, manager()) as value:
        assert value == "value"
        raise KeyError
    assert len(seen) == 1  # type: ignore[unreachable]  # the error has been swallowed


def test_pages(client: Client) -> None:
    """A page is a sequence; it leads to the next, and to all items after it."""
    page = client.models.list()
    assert (len(page), len(page.results), len(list(page)), len(page[:2])) == (3, 3, 3, 2)
    following = page.next_page()
    assert following is not None
    assert type(following) is Page
    names = [model.full_name for model in page.auto_paging_iter()]
    assert names[:3] == [model.full_name for model in page]
    assert names[3:6] == [model.full_name for model in following]
    assert len(names) == len(set(names)) > 6
    assert [len(each) for each in client.paginate(client.models.list)][:2] == [3, 3]
    assert len(list(client.paginate(page))) == len(list(client.paginate(client.models.list)))


def test_pages_are_fetched_as_needed(emulator: Emulator, client: Client) -> None:
    """An iteration over all pages crosses once per page, and asks for none before its time."""
    items = client.models.list().auto_paging_iter()
    assert len(emulator.ledger.requests()) == 1
    for _ in range(3):
        next(items)
    assert len(emulator.ledger.requests()) == 1
    next(items)
    assert len(emulator.ledger.requests()) == 2


def test_updates_and_items(client: Client) -> None:
    """Updates and items of the output are iterated over."""
    prediction = client.predictions.create(
        model="emulator/painter", input={"prompt": "x", "num_outputs": 2}
    )
    assert [update.status for update in prediction.updates()][-1] == "succeeded"
    assert [type(item) for item in prediction.output_iterator()] == [FileOutput, FileOutput]
    assert [event.event for event in prediction.stream()] == ["output", "output", "done"]


@pytest.fixture
def image(client: Client) -> FileOutput:
    """Return a picture."""
    [found] = client.run("emulator/painter", {"prompt": "x", "width": 96, "height": 64})
    assert isinstance(found, FileOutput)
    return found


def test_file(image: FileOutput, tmp_path: Path) -> None:
    """A file is read as a whole, in chunks, and saved."""
    content = image.read()
    assert content.startswith(b"\x89PNG")
    assert b"".join(image) == content == image.read()
    assert image.save(tmp_path / "a.png").read_bytes() == content
    assert image.content_type == "image/png"


def test_file_as_an_image(image: FileOutput) -> None:
    """Pillow opens it as it is."""
    with Image.open(image) as opened:  # type: ignore[arg-type]  # read() takes no size, as in 1.x
        assert opened.size == (96, 64)


def test_file_as_a_real_file(emulator: Emulator, client: Client, image: FileOutput) -> None:
    """`open` gives a file that can seek, for what needs one."""
    with image.open() as file:
        assert file.seek(0, io.SEEK_END) == len(image.read())
        file.seek(0)
        target = io.BytesIO()
        shutil.copyfileobj(file, target)
    assert target.getvalue() == image.read()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("a.txt", "content")
    uploaded = client.files.create(archive.getvalue(), filename="a.zip")
    url = emulator.download_url(uploaded.id)
    output = FileOutput(client._lease, client._async._context.bind(_file(client, url)))
    with output.open() as file, zipfile.ZipFile(file) as opened:
        assert opened.read("a.txt") == b"content"


def _file(client: Client, url: str) -> replicate_async.FileOutput:
    return replicate_async.FileOutput(url, transport=client._async._context.transport)


def test_large_file_is_on_the_disk(image: FileOutput, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too large for memory is in a temporary file, and gone with it."""
    monkeypatch.setattr("replicate_async._files.output._IN_MEMORY", 16)
    with image.open() as file:
        assert isinstance(file.fileno(), int)
        assert file.read() == image.read()
    assert file.closed


def test_file_in_a_loop(image: FileOutput) -> None:
    """Within an event loop, `aread` and `async for` do not block it."""

    async def main() -> None:
        content = await image.aread()
        assert b"".join([chunk async for chunk in image]) == content

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())


@pytest.fixture
def crossings(client: Client, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Return a list that grows with each crossing of this thread to the client's loop."""
    seen: list[object] = []
    here = threading.get_ident()
    post = asyncio.BaseEventLoop.call_soon_threadsafe

    def counted(loop: Any, callback: Any, *args: Any, **options: Any) -> asyncio.Handle:
        if threading.get_ident() == here:
            seen.append(callback)
        return post(loop, callback, *args, **options)

    monkeypatch.setattr(asyncio.BaseEventLoop, "call_soon_threadsafe", counted)
    client.accounts.current()
    assert len(seen) == 1
    return seen


def test_crossings_of_streams(emulator: Emulator, client: Client, crossings: list[object]) -> None:
    """Events cross once for all that have arrived, never one by one."""
    prediction = client.predictions.create(
        model="emulator/writer", input={"prompt": "x", "max_tokens": 150}
    )
    prediction.wait()
    crossings.clear()
    events = list(prediction.stream())  # the whole of it is there
    assert len(events) > 100
    assert len(crossings) < len(events) / 4


def test_crossings_of_files(client: Client, crossings: list[object]) -> None:
    """Chunks of files cross in batches; what a chunk is, stays as it arrived."""

    async def arriving() -> AsyncIterator[bytes]:
        for number in range(3000):
            yield bytes([number % 256]) * 1024

    crossings.clear()
    chunks = list(file_stream(client._lease, arriving()))
    assert len(chunks) == 3000
    assert b"".join(chunks) == b"".join(bytes([n % 256]) * 1024 for n in range(3000))
    assert len(crossings) < 20


def test_chunks_that_fail(client: Client) -> None:
    """What came before an error is handed over, and then the error."""

    async def failing() -> AsyncIterator[bytes]:
        yield b"one"
        raise exceptions.IncompleteFile("https://f/x", 3, 9)

    stream = file_stream(client._lease, failing())
    assert next(stream) == b"one"
    with pytest.raises(exceptions.IncompleteFile):
        next(stream)
    assert list(stream) == []


def test_chunks_that_are_left(client: Client) -> None:
    """Leaving an iteration over a file ends the download; no more than a bit is received ahead."""
    received: list[int] = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                received.append(len(received))
                yield b"x" * 2**18
        finally:
            received.append(-1)

    with file_stream(client._lease, endless()) as stream:
        next(stream)
    assert received[-1] == -1
    assert len(received) < 20


def test_functions(client: Client) -> None:
    """A model as a function is called, started, and shows what it takes."""
    painter = client.use("emulator/painter")
    assert "not known yet" in (painter.__doc__ or "")
    assert painter.load() is painter
    assert "prompt" in str(painter.signature)
    assert painter.__name__ == "painter"
    assert "prompt" in (painter.__doc__ or "")
    [image] = painter(prompt="x")
    assert type(image) is FileOutput
    run = painter.create(prompt="x")
    assert type(run.prediction) is Prediction
    assert type(run.output()[0]) is FileOutput
    assert "Using seed" in run.logs()
    with pytest.raises(exceptions.ArgumentTypeError, match="promt"):
        painter(promt="x")


def test_help_of_functions(client: Client) -> None:
    """`help` and `inspect` show what a model takes; of the classes they show what they are of."""
    painter = client.use("emulator/painter")
    assert "`load()`" in pydoc.plain(pydoc.render_doc(painter))
    painter.load()
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        help(painter)
    assert "prompt: str, required" in shown.getvalue()
    assert "width: int = " in shown.getvalue()
    assert next(iter(inspect.signature(painter).parameters)) == "prompt"
    assert painter.__name__ == "painter"
    assert "Keyword arguments are the model's inputs" in (sync.ModelFunction.__doc__ or "")
    assert sync.ModelFunction.__name__ == "ModelFunction"
    assert list(inspect.signature(sync.ModelFunction.__call__).parameters) == ["self", "inputs"]
    assert "Keyword arguments" in pydoc.plain(pydoc.render_doc(sync.ModelFunction))


def test_functions_of_functions(client: Client) -> None:
    """The output of a function, and what still runs, can be an input of another."""
    painter, describer = client.use("emulator/painter"), client.use("emulator/describer")
    run = painter.create(prompt="x", width=96, height=64)
    assert describer(image=run).startswith("PNG image, 96 x 64 pixels")
    assert describer(image=run.output()[0]).startswith("PNG image, 96 x 64 pixels")


def test_streaming_functions(client: Client) -> None:
    """A streaming function yields text."""
    writer = client.use("emulator/writer", streaming=True)
    with writer(prompt="x") as pieces:
        assert isinstance(next(pieces), str)
    assert "".join(writer(prompt="x"))


def test_text_by_schema_stays_text(client: Client, emulator: Emulator, tmp_path: Path) -> None:
    """A text that is a URL is neither a file nor fetched, where the schema is at hand."""

    @emulator.model("acme/echo")
    def echo(text: str) -> str:
        return text

    given = {"text": f"{emulator.url}/v1/account"}
    model = client.models.get("acme/echo")
    assert client.run(model, given) == given["text"]
    for ref in (model, client.use("acme/echo")):
        [outcome] = client.map(ref, [given], save_to=tmp_path / type(ref).__name__)
        assert outcome.result() == given["text"]
        assert [path.read_text() for path in outcome.saved] == [given["text"]]
