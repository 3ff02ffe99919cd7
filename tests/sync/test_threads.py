"""Many threads and one loop: whoever calls, closes, forks or is interrupted, nobody else notices."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import FrameType
from typing import Any

import pytest

from replicate_async import Limits
from replicate_async.exceptions import ClientClosed
from replicate_async.sync import Client
from replicate_async.sync._streams import Stream
from replicate_async.testing import Emulator, Fault

from .conftest import QUIET_FORK, SECONDS, complaints, run, start, until

posix = pytest.mark.skipif(sys.platform == "win32", reason="it sends signals as POSIX has them")


def test_creates_that_wait(emulator: Emulator) -> None:
    """Of more creates that wait than there are connections, all predictions begin at once."""
    given = {"seconds": 1.5}
    options: dict[str, Any] = {
        "base_url": emulator.url,
        "limits": Limits(connections=4),
        "rate_limit": False,
    }
    with Client(emulator.token, **options) as client, ThreadPoolExecutor(12) as pool:
        create = partial(client.predictions.create, model="emulator/sleeper", wait=20)
        made = [pool.submit(create, input=given) for _ in range(12)]
        until(lambda: len(emulator.ledger.running()) == 12)
        assert all(each.result().output is not None for each in made)


# -- The thread of the loop --------------------------------------------------------------------


def test_one_thread(client: Client) -> None:
    """One thread runs the loop for all others, the main thread included."""

    async def here() -> str:
        return threading.current_thread().name

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(client._lease.call, here).result() == "replicate_async.sync"
    assert client._lease.call(here) == "replicate_async.sync"


def test_deep_stack(client: Client) -> None:
    """A call needs little of the caller's stack, whatever the work on the loop needs."""

    def deep(frames: int) -> str:
        return client.accounts.current().username if frames == 0 else deep(frames - 1)

    depth = len(list(_frames()))
    assert deep(sys.getrecursionlimit() - depth - 30) == "acme"


def _frames() -> Iterator[object]:
    frame: FrameType | None = sys._getframe()  # noqa: SLF001  (the frame at which a signal strikes)
    while frame is not None:
        yield frame
        frame = frame.f_back


def test_handler_of_ctrl_c_is_put_back(client: Client) -> None:
    """After each call, Ctrl-C does what it did before."""
    before = signal.getsignal(signal.SIGINT)
    client.accounts.current()
    assert signal.getsignal(signal.SIGINT) is before
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        client.accounts.current()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


# -- Threads side by side ----------------------------------------------------------------------


def test_loop_goes_on_without_calls(client: Client) -> None:
    """What is under way on the loop goes on while the main thread does something else."""
    import asyncio

    ticks: list[float] = []
    tasks: list[asyncio.Task[None]] = []

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.01)

    async def begin() -> None:
        tasks.append(asyncio.create_task(tick()))

    async def end() -> None:
        tasks[0].cancel()

    client._lease.call(begin)
    until(lambda: len(ticks) > 20)
    client._lease.call(end)


def test_calls_of_other_threads(emulator: Emulator, client: Client) -> None:
    """Calls of another thread are served during those of the main thread, and after them."""
    client.accounts.current()
    served: list[object] = []

    def other() -> None:
        while not leave.is_set():
            served.append(client.run("emulator/sleeper", {"seconds": 0.05}))

    leave = threading.Event()
    thread = threading.Thread(target=other)
    thread.start()
    try:
        until(lambda: len(served) > 1)
        before = len(served)
        assert client.run("emulator/sleeper", {"seconds": 3}) is not None
        during = len(served)
        until(lambda: len(served) > during + 5)
    finally:
        leave.set()
        thread.join(SECONDS)
    assert during > before + 5
    assert None not in served


def test_closing_during_a_call_of_the_main_thread(emulator: Emulator) -> None:
    """A client that another thread closes ends the call of the main thread, and cancels what it paid for."""
    client = Client(emulator.token, base_url=emulator.url)

    def close() -> None:
        until(emulator.ledger.running)
        client.close()

    with ThreadPoolExecutor(1) as pool:
        closed = pool.submit(close)
        with pytest.raises(ClientClosed):
            client.run("emulator/sleeper", {"seconds": 60})
        closed.result()
    assert len(emulator.ledger.cancelled()) == 1


def test_closing_during_calls(emulator: Emulator) -> None:
    """Calls that begin while the client is being closed are refused, or cancelled: nothing goes on."""

    def call(client: Client, after: float) -> None:
        time.sleep(after)
        with pytest.raises(ClientClosed):
            client.run("emulator/sleeper", {"seconds": 60})

    with ThreadPoolExecutor(8) as pool:
        for turn in range(10):
            client = Client(emulator.token, base_url=emulator.url)
            client.accounts.current()
            calls = [pool.submit(call, client, number * 0.001) for number in range(8)]
            time.sleep(turn * 0.001)
            client.close()
            for each in calls:
                each.result(SECONDS)
            assert not emulator.ledger.running()


@pytest.mark.parametrize("connections", [256, 1])
def test_closing_before_the_answer_to_a_create(emulator: Emulator, connections: int) -> None:
    """A create that another thread's `close()` overtakes returns what it has made, which nobody cancels.

    With one connection, the server does not hold it, and it polls.
    """
    limits = Limits(connections=connections)
    client = Client(emulator.token, base_url=emulator.url, limits=limits)
    create = partial(client.predictions.create, model="emulator/sleeper", wait=30)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(create, input={"seconds": 60})
        until(emulator.ledger.running)
        client.close()
        assert call.result(SECONDS).id == emulator.ledger.created()[0].id
    assert not emulator.ledger.cancelled()


def test_refused_close(emulator: Emulator) -> None:
    """A client whose `close()` is refused where it is called can be closed elsewhere."""
    import asyncio

    from replicate_async.exceptions import WouldDeadlock

    client = Client(emulator.token, base_url=emulator.url)

    async def close() -> None:
        await asyncio.sleep(0)
        client.close()

    with pytest.raises(WouldDeadlock):
        client._lease.call(close)
    assert client.accounts.current() is not None
    client.close()


def test_closed_by_two_threads() -> None:
    """A second `close()` waits for the first, and takes nothing from it: what has cost is cancelled."""
    with (
        Emulator(rate_limits=False, latency=0.1) as emulator,
        ThreadPoolExecutor(2) as pool,
    ):
        client = Client(emulator.token, base_url=emulator.url)
        call = pool.submit(client.run, "emulator/sleeper", {"seconds": 60})
        until(emulator.ledger.running)
        first = pool.submit(client.close)
        until(lambda: client._lease.claim.closed)
        client.close()
        assert first.done() or first.result(1) is None
        assert isinstance(call.exception(SECONDS), ClientClosed)
        assert not emulator.ledger.running()
        assert len(emulator.ledger.cancelled()) == 1


def test_stream_of_a_client_that_is_being_closed(emulator: Emulator) -> None:
    """Whoever goes on with a stream while another thread closes its client is told."""
    import asyncio

    class Source:
        def __aiter__(self) -> Source:
            return self

        async def __anext__(self) -> int:
            return 1

        async def aclose(self) -> None:
            closing.set()
            await asyncio.sleep(0.5)

    closing = threading.Event()
    client = Client(emulator.token, base_url=emulator.url)
    stream: Stream[int] = Stream(client._lease, Source())
    assert next(stream) == 1
    with ThreadPoolExecutor(1) as pool:
        closed = pool.submit(client.close)
        assert closing.wait(SECONDS)
        with pytest.raises(ClientClosed):
            next(stream)
        closed.result(SECONDS)


@posix
def test_interrupted_before_it_began(emulator: Emulator, client: Client) -> None:
    """Work whose caller is interrupted before it could begin does not begin."""

    class Alarm(Exception):
        pass

    busy, free = threading.Event(), threading.Event()

    def token() -> str:  # is called on the loop
        busy.set()
        free.wait(SECONDS)
        return emulator.token

    def ring(*_: object) -> None:
        free.set()
        raise Alarm

    before = signal.signal(signal.SIGALRM, ring)
    try:
        with (
            Client(token, base_url=emulator.url) as other,
            ThreadPoolExecutor(1) as pool,
        ):
            holding = pool.submit(other.accounts.current)
            assert busy.wait(SECONDS)
            signal.setitimer(signal.ITIMER_REAL, 0.2)
            with pytest.raises(Alarm):
                client.predictions.create(model="replicate/hello-world", input={"text": "x"})
            assert holding.result(SECONDS).username == "acme"
            client.accounts.current()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert emulator.ledger.created() == []


def test_dropped_just_before_the_end(emulator: Emulator) -> None:
    """A stream and its client that are dropped by the last line of a script are wound up all the same."""
    run(
        """
        from replicate_async.sync import Client
        def main():
            client = Client()
            stream = client.stream("emulator/writer", {"prompt": "x", "max_tokens": 2000})
            next(stream)
            return client, stream
        main()
        """
    )
    assert not emulator.ledger.running()
    assert len(emulator.ledger.cancelled()) == 1


def test_many_threads_and_the_main_one(emulator: Emulator) -> None:
    """Whatever turns they take, each gets its own answer, and a thread can always end the last client."""

    def work(number: int) -> None:
        for turn in range(15):
            text = f"{number}.{turn}"
            assert client.run("replicate/hello-world", {"text": text}) == f"hello {text}"

    for _ in range(3):
        with (
            Client(emulator.token, base_url=emulator.url) as client,
            ThreadPoolExecutor(4) as pool,
        ):
            others = [pool.submit(work, number) for number in range(4)]
            work(9)
            for other in others:
                other.result(SECONDS)


@pytest.mark.parametrize("pause", [0.0, 0.15])
def test_connections_that_were_closed_meanwhile(pause: float) -> None:
    """A connection that the server closed between two calls is not used: a create would be in doubt."""
    with (
        Emulator(rate_limits=False, wire=True) as emulator,
        Client(emulator.token, base_url=emulator.url) as client,
    ):
        version = client.models.get("replicate/hello-world").latest_version
        assert version is not None
        emulator.wire.inject(Fault.CLOSE_AFTER_ANSWER)
        with ThreadPoolExecutor(1) as pool:
            for number in range(20):
                if number % 3 == 2:
                    pool.submit(client.predictions.create, version, {"text": "x"}).result()
                else:
                    client.predictions.create(version, {"text": "x"})
                # Until the news is there, which is on its way when the answer is.
                threading.Event().wait(0.01 + pause)
        assert client.stats.retried == 0
        assert client.stats.adopted == 0
        assert len(emulator.ledger.created()) == 20


# -- Ctrl-C ------------------------------------------------------------------------------------


@posix
def test_interrupt_spares_other_threads(emulator: Emulator) -> None:
    """Ctrl-C ends the main thread's own call, not those of other threads that it has run meanwhile."""
    process = start(
        """
        import threading
        from replicate_async import sync as replicate
        replicate.accounts.current()
        results = []
        def other():
            results.append(replicate.run("emulator/sleeper", {"seconds": 3}) is not None)
        thread = threading.Thread(target=other)
        try:
            thread.start()
            replicate.run("emulator/sleeper", {"seconds": 60})
        except KeyboardInterrupt:
            print("out", results)
        thread.join()
        print(results)
        """
    )
    with process:
        try:
            until(lambda: len(emulator.ledger.running()) == 2, SECONDS)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert (out, complaints(err)) == ("out []\n[True]\n", [])
    assert len(emulator.ledger.cancelled()) == 1


@posix
def test_interrupted_while_the_loop_hangs() -> None:
    """A second Ctrl-C gets out also when the loop hangs in somebody's code."""
    process = start(
        """
        import os, time
        from replicate_async.sync import Client
        async def hang():
            print("ready", flush=True)
            while True:
                time.sleep(0.01)
        client = Client()
        try:
            client._lease.call(hang)
        except KeyboardInterrupt:
            print("out", flush=True)
        os._exit(0)
        """
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            began = time.monotonic()
            for _ in range(2):
                process.send_signal(signal.SIGINT)
                time.sleep(0.3)  # signals that wait for the same handler become one
            out, err = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert (out, complaints(err)) == ("out\n", [])
    assert time.monotonic() - began < 20


@posix
def test_interrupts_at_any_moment() -> None:
    """Ctrl-C in the middle of short calls raises at the user's line each time; the client stays whole."""
    out = run(
        """
        import os, random, signal, threading, time
        from replicate_async import sync as replicate
        replicate.run("replicate/hello-world", {"text": "x"})  # all is imported now
        main = os.getpid()
        rest = random.Random(7)
        caught = 0
        def press():
            for _ in range(60):
                time.sleep(rest.uniform(0.005, 0.03))
                pressed.clear()
                os.kill(main, signal.SIGINT)
                pressed.wait(30)
        pressed = threading.Event()
        thread = threading.Thread(target=press)
        while thread.ident is None or thread.is_alive():
            try:
                if thread.ident is None:
                    thread.start()
                while thread.is_alive():
                    replicate.accounts.current()
            except KeyboardInterrupt:
                caught += 1
                pressed.set()
        print(caught, replicate.run("replicate/hello-world", {"text": "Alice"}))
        """
    )
    assert out == "60 hello Alice\n"


@pytest.mark.parametrize("order", ["client first", "pool first", "default client"])
def test_a_first_call_after_control_c_goes_on(order: str) -> None:
    """A thread that makes its first call after Ctrl-C may be part of dealing with it: that call goes on."""
    entered = {
        "client first": "replicate.Client() as client, ThreadPoolExecutor() as pool",
        "pool first": "ThreadPoolExecutor() as pool, replicate.Client() as client",
        "default client": "contextlib.nullcontext(replicate) as client, ThreadPoolExecutor() as pool",
    }[order]
    out = run(
        f"""
        import contextlib, threading, time
        from concurrent.futures import ThreadPoolExecutor
        from replicate_async import sync as replicate
        pressed = threading.Event()
        def early(client):
            try:
                client.run("emulator/sleeper", {{"seconds": 60}})
            except (KeyboardInterrupt, replicate.exceptions.ClientClosed) as error:
                return "ended"
        def late(client):
            pressed.wait()
            try:
                return client.run("emulator/sleeper", {{"seconds": 3}}).partition(" ")[0]
            except replicate.exceptions.ClientClosed:
                return "closed"
        try:
            with {entered}:
                client.accounts.current()
                running, later = pool.submit(early, client), pool.submit(late, client)
                time.sleep(1)
                pressed.set()
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            print(running.result(), later.result())
        """
    )
    assert out == ("ended closed\n" if order == "pool first" else "ended slept\n")


def test_control_c_in_the_imports_of_a_first_call(emulator: Emulator) -> None:
    """A first call is interrupted like others, also if it was still importing what it needs at Ctrl-C."""
    out = run(
        """
        import sys, threading, time
        from concurrent.futures import ThreadPoolExecutor
        from replicate_async import sync as replicate
        importing = threading.Event()
        class SlowDisk:
            def find_spec(self, name, *_):
                if name == "replicate_async.sync._facade":
                    importing.set()
                    time.sleep(0.5)
        sys.meta_path.insert(0, SlowDisk())
        try:
            with ThreadPoolExecutor(1) as pool:
                running = pool.submit(lambda: replicate.run("emulator/sleeper", {"seconds": 60}))
                importing.wait()
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            print(type(running.exception()).__name__)
        """
    )
    assert out == "KeyboardInterrupt\n"
    assert not emulator.ledger.running()


@posix
def test_interrupts_at_every_call() -> None:
    """Wherever in the facade it strikes, Ctrl-C raises, and neither work nor a lock is left behind.

    Python calls signal handlers when a function begins, after calls, and before loops go on.
    """
    out = run(
        """
        import asyncio, dis, functools, itertools, pathlib, signal, sys, time
        from replicate_async import sync
        facade = str(pathlib.Path(sync.__file__).parent)
        running = 0
        async def nap():
            global running
            running += 1
            try:
                await asyncio.sleep(0)
            finally:
                running -= 1
        @functools.cache
        def handled_at(code):
            found = [each for each in dis.get_instructions(code) if each.opname != "CACHE"]
            return {
                later.offset for each, later in itertools.pairwise(found)
                if each.opname.startswith(("CALL", "RESUME", "JUMP_BACKWARD"))
            }
        client = sync.Client()
        client._lease.call(nap)
        def interrupted_at(number):
            count = 0
            def trace(frame, event, _):
                nonlocal count
                if not frame.f_code.co_filename.startswith(facade):
                    return None
                frame.f_trace_opcodes = True
                if event == "opcode" and frame.f_lasti in handled_at(frame.f_code):
                    count += 1
                    if count == number:
                        signal.raise_signal(signal.SIGINT)  # what raises is not called any more
                return trace
            try:
                sys._getframe().f_trace_opcodes = True  # Python 3.12 traces none if no frame asks by now  # noqa: SLF001  (the frame at which a signal strikes)
                sys.settrace(trace)
                client._lease.call(nap)
            except KeyboardInterrupt:
                return True
            finally:
                sys.settrace(None)
            assert count < number, "Ctrl-C was lost"
            return False
        number = 1
        while interrupted_at(number):
            number += 1
            client._lease.call(nap)
            deadline = time.monotonic() + 10
            while running and time.monotonic() < deadline:
                time.sleep(0.001)
            assert not running, number
        began = time.monotonic()
        client.close()
        print(number > 20, time.monotonic() - began < 5)
        """
    )
    assert out == "True True\n"


# -- Forks -------------------------------------------------------------------------------------


@posix
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fork_during_a_call_of_the_main_thread(emulator: Emulator) -> None:
    """A child that another thread makes meanwhile has a loop of its own, and its Ctrl-C."""
    out = run(
        """
        import os, signal, threading, time
        from replicate_async import sync as replicate
        replicate.accounts.current()
        def fork():
            time.sleep(0.5)
            if (pid := os.fork()) == 0:
                plain = signal.getsignal(signal.SIGINT) is signal.default_int_handler
                print("child", plain, replicate.run("replicate/hello-world", {"text": "Bob"}))
                replicate.default_client().close()
                os._exit(0)
            os.waitpid(pid, 0)
        thread = threading.Thread(target=fork)
        thread.start()
        replicate.run("emulator/sleeper", {"seconds": 2})
        thread.join()
        print("parent", replicate.run("replicate/hello-world", {"text": "Alice"}))
        """,
        QUIET_FORK,
    )
    assert out == "child True hello Bob\nparent hello Alice\n"


@posix
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forks_between_calls_of_the_main_thread() -> None:
    """Also a child that is made when the main thread is about to call, or about to return, has its Ctrl-C."""
    out = run(
        """
        import os, signal, threading, time
        from replicate_async import sync as replicate
        replicate.accounts.current()
        failed = 0
        def fork():
            global failed
            for _ in range(100):
                if (pid := os.fork()) == 0:
                    plain = signal.getsignal(signal.SIGINT) is signal.default_int_handler
                    os._exit(not plain)
                failed += os.waitpid(pid, 0)[1] != 0
        thread = threading.Thread(target=fork)
        thread.start()
        while thread.is_alive():
            replicate.accounts.current()
            time.sleep(0.003)
        print("failed", failed)
        """,
        QUIET_FORK,
    )
    assert out == "failed 0\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize(
    "module", ["replicate_async.client", "aiohttp", "anyio._backends._asyncio"]
)
def test_fork_during_an_import(module: str) -> None:
    """A child is not made while another thread is importing what the facade needs, for its first call."""
    out = run(
        f"""
        import concurrent.futures.thread  # which complains if it is imported during a fork
        import os, signal, sys, threading, time
        from replicate_async import sync as replicate
        class Slow:
            def find_spec(self, name, path=None, target=None):
                if name == {module!r}:
                    importing.set()
                    time.sleep(0.5)
        importing = threading.Event()
        sys.meta_path.insert(0, Slow())
        def say(text):  # at once, since two processes do
            os.write(1, (text + "\\n").encode())
        def call():
            say(replicate.run("replicate/hello-world", {{"text": "Alice"}}))
        thread = threading.Thread(target=call)
        thread.start()
        importing.wait()
        if (pid := os.fork()) == 0:
            signal.alarm(20)
            say("child " + replicate.run("replicate/hello-world", {{"text": "Bob"}}))
            os._exit(0)
        say(str(os.waitpid(pid, 0)[1]))
        thread.join()
        """,
        QUIET_FORK,
    )
    assert sorted(out.splitlines()) == ["0", "child hello Bob", "hello Alice"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fork_during_the_first_call_of_a_client() -> None:
    """A client whose first call another thread is about to make works in the child."""
    out = run(
        """
        import os, threading, time
        ready, threads = [], []
        def linger():  # registered first, this runs after what the facade does before a fork
            if ready:
                threads.append(threading.Thread(target=ready[0].accounts.current))
                threads[0].start()
                time.sleep(0.3)
        os.register_at_fork(before=linger)
        from replicate_async.sync import Client
        used, fresh = Client(), Client()
        used.accounts.current()
        ready.append(fresh)
        if (pid := os.fork()) == 0:
            print("child", fresh.run("replicate/hello-world", {"text": "Bob"}))
            fresh.close()
            os._exit(0)
        os.waitpid(pid, 0)
        threads[0].join()
        print("parent", fresh.run("replicate/hello-world", {"text": "Alice"}))
        """,
        QUIET_FORK,
    )
    assert out == "child hello Bob\nparent hello Alice\n"
