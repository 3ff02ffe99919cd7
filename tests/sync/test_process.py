"""Interrupts, forks and exits, in real processes."""

from __future__ import annotations

import os
import signal
import sys
import textwrap
import time

import pytest

from replicate_async.testing import Emulator

from .conftest import QUIET_FORK, SECONDS, complaints, interrupt, run, start, until

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

RUN = 'replicate.run("replicate/hello-world", {"text": "Alice"})'


# -- Ctrl-C ------------------------------------------------------------------------------------


def test_interrupted_run(emulator: Emulator) -> None:
    """Ctrl-C cancels the prediction before it raises at the user's line; the client remains usable."""
    out, err, took = interrupt(
        f"""
        import traceback
        from replicate_async import sync as replicate
        try:
            replicate.run("emulator/sleeper", {{"seconds": 60}})
        except KeyboardInterrupt as error:
            frames = traceback.extract_tb(error.__traceback__)
            print(replicate.predictions.list()[0].status, len(frames), frames[0].lineno)
            print({RUN})
        """,
        emulator.ledger.running,
    )
    assert (out, complaints(err)) == ("canceled 1 5\nhello Alice\n", [])
    assert len(emulator.ledger.cancelled()) == 1
    assert took < 5


def test_interrupted_stream(emulator: Emulator) -> None:
    """Ctrl-C ends a stream; its prediction is cancelled when the except block begins."""
    out, err, took = interrupt(
        """
        from replicate_async import sync as replicate
        try:
            for event in replicate.stream("emulator/sleeper", {"seconds": 60}):
                pass
        except KeyboardInterrupt:
            print(replicate.predictions.list()[0].status)
        """,
        emulator.ledger.running,
    )
    assert (out, complaints(err)) == ("canceled\n", [])
    assert took < 5


def test_stream_after_an_interrupt(emulator: Emulator) -> None:
    """A stream that was interrupted is not taken for one that has ended; a closed one ends quietly."""
    out, err, _ = interrupt(
        """
        from replicate_async import sync as replicate
        events = replicate.stream("emulator/sleeper", {"seconds": 60})
        try:
            next(events)
        except KeyboardInterrupt:
            for step in (next, list):
                try:
                    step(events)
                except replicate.exceptions.StreamAbandoned as error:
                    print(type(error.prediction) is replicate.Prediction, error.prediction.status)
                    print("was cancelled" in str(error))
        events.close()
        print(list(events))
        """,
        emulator.ledger.running,
    )
    assert (out, complaints(err)) == ("True canceled\nTrue\n" * 2 + "[]\n", [])


def test_killed_script(emulator: Emulator) -> None:
    """A script that does not catch Ctrl-C ends with its own line last, and its prediction ends, too."""
    out, err, took = interrupt(
        """
        from replicate_async import sync as replicate
        replicate.run("emulator/sleeper", {"seconds": 60})
        """,
        emulator.ledger.running,
    )
    assert out == ""
    # Since 3.13 there is the source of the line, too.
    marks = ("Traceback", "File", "KeyboardInterrupt")
    assert [line.strip() for line in err.splitlines() if line.strip().startswith(marks)] == [
        "Traceback (most recent call last):",
        'File "<string>", line 3, in <module>',
        "KeyboardInterrupt",
    ]
    assert len(emulator.ledger.cancelled()) == 1
    assert took < 5


def test_interrupted_twice() -> None:
    """A second Ctrl-C does not wait for a clean-up that hangs."""
    out, err, took = _twice()
    assert out == "out\n"
    assert err == ""
    assert took < 20


def _twice() -> tuple[str, str, float]:
    import signal
    import time

    from .conftest import SECONDS, start

    code = """
        import asyncio, os
        from replicate_async.sync import Client
        async def stubborn():
            try:
                print("ready", flush=True)
                await asyncio.sleep(60)
            finally:
                print("cancelled", flush=True)
                await asyncio.sleep(60)
        client = Client()
        try:
            client._lease.call(stubborn)
        except KeyboardInterrupt:
            print("out", flush=True)
        os._exit(0)  # not to wait at the exit for what hangs
    """
    with start(code) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "cancelled\n"
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=SECONDS)
            return out, err, time.monotonic() - began
        finally:
            process.kill()


IN_THREADS = {
    "pool_within": """
        with Client() as client, ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda n: client.run("emulator/sleeper", {"seconds": 60}), range(8)))
        """,
    "pool_around": """
        with ThreadPoolExecutor(2) as pool, Client() as client:
            list(pool.map(lambda n: client.run("emulator/sleeper", {"seconds": 60}), range(8)))
        """,
    "default_client": """
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda n: replicate.run("emulator/sleeper", {"seconds": 60}), range(8)))
        """,
    "queued": """
        def work():
            replicate.run("emulator/sleeper", {"seconds": 60})
        with ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(work) for _ in range(8)]:
                future.result()
        """,
    "clean_up_in_the_worker": """
        def work(number):
            prediction = replicate.predictions.create(model="emulator/sleeper", input={"seconds": 60})
            try:
                prediction.wait()
            finally:
                prediction.cancel()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(work, range(8)))
        """,
    "streams": """
        def work(number):
            for event in replicate.stream("emulator/writer", {"prompt": "x", "max_tokens": 2000}):
                pass
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(work, range(8)))
        """,
    "slow_streams": """
        import time
        def work(number):
            for event in replicate.stream("emulator/writer", {"prompt": "x", "max_tokens": 2000}):
                time.sleep(0.5)  # so that there always are events that have arrived
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(work, range(8)))
        """,
    "asyncio": """
        def work():
            replicate.run("emulator/sleeper", {"seconds": 60})
        async def main():
            await asyncio.gather(asyncio.to_thread(work), asyncio.to_thread(work))
        asyncio.run(main())
        """,
    "no_with": """
        pool = ThreadPoolExecutor(2)
        pool.submit(replicate.run, "emulator/sleeper", {"seconds": 60})
        pool.submit(replicate.run, "emulator/sleeper", {"seconds": 60}).result()
        """,
}


@pytest.mark.parametrize("code", IN_THREADS.values(), ids=IN_THREADS.keys())
def test_interrupted_threads(emulator: Emulator, code: str) -> None:
    """The first Ctrl-C cancels the calls of other threads, for which the main thread has to wait."""
    imports = """
        import asyncio
        from concurrent.futures import ThreadPoolExecutor
        from replicate_async import sync as replicate
        from replicate_async.sync import Client
        """
    out, err, took = interrupt(
        textwrap.dedent(imports) + textwrap.dedent(code),
        lambda: len(emulator.ledger.running()) == 2,
    )
    assert (out, err.splitlines()[-1]) == ("", "KeyboardInterrupt")
    assert "never" not in err
    assert len(emulator.ledger.lives()) == len(emulator.ledger.cancelled()) == 2
    assert took < 8


def test_interrupt_that_is_handled(emulator: Emulator) -> None:
    """If the main thread goes on after Ctrl-C, so do calls of other threads; clean-up may use threads."""
    out, err, _ = interrupt(
        """
        import threading, time
        from concurrent.futures import ThreadPoolExecutor
        from replicate_async import sync as replicate
        def work(_):
            return replicate.run("emulator/sleeper", {"seconds": 3}) is not None
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(work, 0)
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                pass
            print(running.result())
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            with ThreadPoolExecutor(1) as pool:
                print(list(pool.map(work, range(1))))
        """,
        emulator.ledger.running,
    )
    assert (out, complaints(err)) == ("True\n[True]\n", [])
    assert not emulator.ledger.cancelled()


SCRIPTS = {
    "sync": """
        from replicate_async import sync as replicate
        replicate.run("emulator/sleeper", {"seconds": 60})
        """,
    "async": """
        import asyncio
        import replicate_async as replicate
        asyncio.run(replicate.run("emulator/sleeper", {"seconds": 60}))
        """,
}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
@pytest.mark.parametrize("code", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_sigterm_as_control_c(emulator: Emulator, code: str) -> None:
    """SIGTERM cancels what a script runs, if the script treats it like Ctrl-C, as the documentation shows."""
    handled = """
        import signal
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        """
    with start(textwrap.dedent(handled) + textwrap.dedent(code)) as process:
        try:
            until(emulator.ledger.running, SECONDS)
            time.sleep(0.5)  # so that the script waits, as scripts do for nearly all of their time
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    assert "never" not in err
    assert len(emulator.ledger.lives()) == len(emulator.ledger.cancelled()) == 1


def test_other_signals() -> None:
    """What another signal handler raises ends a call as Ctrl-C does."""
    out = run(
        """
        import signal
        from replicate_async import sync as replicate
        class Alarm(Exception): pass
        def ring(*_): raise Alarm
        signal.signal(signal.SIGALRM, ring)
        replicate.accounts.current()
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        try:
            replicate.run("emulator/sleeper", {"seconds": 60})
        except Alarm:
            print(replicate.predictions.list()[0].status)
        """
    )
    assert out == "canceled\n"


# -- Forks -------------------------------------------------------------------------------------


@forks
def test_used_client() -> None:
    """A client that was used before a fork works on both sides of it, each with its own thread."""
    out = run(
        f"""
        import os, threading
        from replicate_async import sync as replicate
        {RUN}
        if (pid := os.fork()) == 0:
            print("child", {RUN}, threading.active_count())
            replicate.default_client().close()
            print("threads", threading.active_count())
        else:
            os.waitpid(pid, 0)
            print("parent", {RUN})
        """,
        QUIET_FORK,
    )
    assert out == "child hello Alice 2\nthreads 1\nparent hello Alice\n"


@forks
def test_grandchildren() -> None:
    """A child of a child works, too."""
    out = run(
        f"""
        import os
        from replicate_async import sync as replicate
        for generation in range(4):
            {RUN}
            if (pid := os.fork()) != 0:
                os.waitpid(pid, 0)
                break
        print({RUN})
        """,
        QUIET_FORK,
    )
    assert out == "hello Alice\n" * 5


@forks
def test_open_stream() -> None:
    """A stream cannot go on in the child, and says so; in the parent it goes on."""
    out = run(
        """
        import os
        from replicate_async import sync as replicate
        from replicate_async.exceptions import LoopClosed
        stream = replicate.stream(
            "emulator/writer", {"prompt": "x", "max_tokens": 5, "delay": 0.3}
        )
        fresh = replicate.stream("emulator/writer", {"prompt": "x", "max_tokens": 5})
        first = str(next(stream))
        stream._ready.clear()
        if (pid := os.fork()) == 0:
            try:
                next(stream)
            except LoopClosed as error:
                print("child:", error)
            stream.close()
            print(len(list(fresh)))
        else:
            os.waitpid(pid, 0)
            print("parent:", len(list(stream)) > 0, len(list(fresh)))
        """,
        QUIET_FORK,
    )
    assert out == (
        "child: it was opened before a fork; open it again in the child\n6\nparent: True 6\n"
    )


@forks
def test_locks_held(emulator: Emulator) -> None:
    """Forks in the middle of other threads' calls, starts and ends do not lock up the children."""
    out = run(
        """
        import os, signal, threading
        from replicate_async.sync import Client
        stop = False
        shared = Client()
        def busy():
            while not stop:
                with Client() as client:
                    client.accounts.current()
                shared.accounts.current()
        threads = [threading.Thread(target=busy) for _ in range(4)]
        for t in threads: t.start()
        failed = 0
        for number in range(60):
            if (pid := os.fork()) == 0:
                signal.alarm(20)
                (shared if number % 2 else Client()).accounts.current()
                os._exit(0)
            failed += os.waitpid(pid, 0)[1] != 0
        stop = True
        for t in threads: t.join()
        shared.close()
        print("failed", failed)
        """,
        QUIET_FORK,
    )
    assert out == "failed 0\n"


@forks
def test_waiting_for_the_rate_limit() -> None:
    """Those who waited for the rate limit in the parent are not waited for in the child."""
    out = run(
        """
        import os, threading
        from replicate_async import sync as replicate
        client = replicate.Client(rate_limit=replicate.RateLimit(others=2, per=1.5))
        client.accounts.current()
        threads = [threading.Thread(target=client.accounts.current) for _ in range(4)]
        for t in threads: t.start()
        while client.stats.waited == 0:
            os.sched_yield()
        if (pid := os.fork()) == 0:
            print("child", client.accounts.current().username)
            client.close()
            os._exit(0)
        for t in threads: t.join()
        print(os.waitpid(pid, 0)[1])
        client.close()
        """,
        QUIET_FORK,
    )
    assert out == "child acme\n0\n"


@forks
def test_multiprocessing() -> None:
    """A pool of forked processes works with a client of the parent; predictions travel."""
    out = run(
        """
        import multiprocessing
        from replicate_async import sync as replicate
        replicate.accounts.current()
        def work(number):
            prediction = replicate.predictions.create(
                model="replicate/hello-world", input={"text": str(number)})
            return prediction.wait()
        if __name__ == "__main__":
            with multiprocessing.get_context("fork").Pool(4) as pool:
                predictions = pool.map(work, range(6))
                print([p.output for p in predictions], predictions[0].reload().status)
                pool.close()
                pool.join()
        """,
        QUIET_FORK,
    )
    assert out == f"{[f'hello {n}' for n in range(6)]} succeeded\n"


def test_spawned_pool() -> None:
    """Objects travel to processes that were not forked."""
    out = run(
        """
        import multiprocessing
        from replicate_async import sync as replicate
        from replicate_async.sync import Prediction
        prediction = replicate.predictions.create(model="emulator/failer", input={"error": "no"})
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(pool.apply(Prediction.wait, (prediction,)).status)
            pool.close()
            pool.join()
        """
    )
    assert out == "failed\n"


# -- The garbage collector ---------------------------------------------------------------------


def test_collection_in_a_post(emulator: Emulator) -> None:
    """The garbage collector may strike while a call holds the lock of the loop."""
    out = run(
        """
        import asyncio, gc
        from replicate_async import sync as replicate
        client = replicate.Client()
        stream = client.stream("emulator/writer", {"prompt": "x", "max_tokens": 2000})
        next(stream)
        cycle = [stream]
        cycle.append(cycle)
        del stream, cycle
        post = asyncio.BaseEventLoop.call_soon_threadsafe
        def collecting(*args, **kwargs):
            asyncio.BaseEventLoop.call_soon_threadsafe = post
            gc.collect()
            return post(*args, **kwargs)
        asyncio.BaseEventLoop.call_soon_threadsafe = collecting
        client.accounts.current()
        client.close()
        """
    )
    assert out == ""
    assert len(emulator.ledger.cancelled()) == 1


# -- The end of the interpreter ----------------------------------------------------------------


def test_unclosed_client(emulator: Emulator) -> None:
    """What is open at the end is closed without a word; an open stream's prediction is cancelled."""
    out = run(
        """
        from replicate_async import sync as replicate
        client = replicate.Client()
        stream = client.stream("emulator/writer", {"prompt": "x", "max_tokens": 2000})
        next(stream)
        replicate.accounts.current()
        """
    )
    assert out == ""
    assert len(emulator.ledger.cancelled()) == 1


def test_closed_default_client() -> None:
    """Closing the default client ends its thread. It can be used again, also by what holds one of its names."""
    out = run(
        """
        import threading
        from replicate_async import sync as replicate
        replicate.close()
        call = replicate.run
        for _ in range(2):
            print(call("replicate/hello-world", {"text": "Alice"}), threading.active_count())
            replicate.close()
            replicate.close()
            print(threading.active_count())
        """
    )
    assert out == "hello Alice 2\n1\n" * 2


def test_exit_handlers(emulator: Emulator) -> None:
    """Exit handlers can use clients, old and new, also those that run after that of the facade."""
    out = run(
        """
        import atexit
        def late():
            print(prediction.cancel().status)
            client = replicate.default_client()
            for client in client, replicate.Client():
                with client:
                    print(client.run("replicate/hello-world", {"text": "late"}))
                try:
                    client.accounts.current()
                except replicate.ReplicateException as error:
                    print(error)
        atexit.register(late)
        from replicate_async import sync as replicate
        prediction = replicate.predictions.create(model="emulator/sleeper", input={"seconds": 60})
        atexit.register(lambda: print(replicate.accounts.current().username))
        """
    )
    closed = "this client is closed; create another one\n"
    assert out == f"acme\ncanceled\nhello late\n{closed}hello late\n{closed}"
    assert len(emulator.ledger.cancelled()) == 1


def test_exit_handlers_before_the_first_call(emulator: Emulator) -> None:
    """A handler that was registered before the first call, but after the import, can cancel."""
    out = run(
        """
        import atexit
        from replicate_async import sync as replicate
        prediction = None
        atexit.register(lambda: print(prediction.cancel().status))
        prediction = replicate.predictions.create(model="emulator/sleeper", input={"seconds": 60})
        """
    )
    assert out == "canceled\n"
    assert len(emulator.ledger.cancelled()) == 1


def test_finalizers() -> None:
    """`__del__` methods that use the client, at any time of the end, do not hang."""
    out = run(
        """
        from replicate_async import sync as replicate
        client = replicate.default_client()
        class Late:
            def __del__(self):
                try:
                    client.accounts.current()
                    print("in time")
                except Exception as error:
                    print(type(error).__name__)
        client.accounts.current()
        Late()
        late = Late()
        import sys
        sys.modules["keeps"] = late
        """
    )
    # The second runs when even imports have ended.
    assert out.splitlines()[0] == "in time"
    assert out.splitlines()[1].endswith(("Closed", "Error"))


def test_worker_thread_at_the_end() -> None:
    """A thread in the middle of a call is waited for, as ever."""
    out = run(
        """
        import threading
        from replicate_async import sync as replicate
        replicate.accounts.current()
        def work():
            print(replicate.run("emulator/sleeper", {"seconds": 0.5}) is not None)
        threading.Thread(target=work).start()
        """
    )
    assert out == "True\n"


def test_first_call_after_the_main_thread() -> None:
    """The first call may come when the main thread has ended; if Python forbids it, the error says so."""
    out = run(
        """
        import threading
        from replicate_async import sync as replicate
        def work():
            threading.main_thread().join()
            try:
                print(replicate.accounts.current().username)
            except Exception as error:
                print(type(error).__name__, "let it wait for its threads" in str(error))
        threading.Thread(target=work).start()
        """
    )
    forbidden = (3, 12, 0) <= sys.version_info < (3, 12, 3)
    assert out == ("LoopClosed True\n" if forbidden else "acme\n")


def test_import_after_the_main_thread() -> None:
    """An import that comes when the main thread has ended fails, and says what to do."""
    out = run(
        """
        import threading
        def work():
            threading.main_thread().join()
            try:
                from replicate_async import sync
            except Exception as error:
                print(type(error).__name__, error)
        threading.Thread(target=work).start()
        """
    )
    assert out.startswith(
        "LoopClosed the main thread has ended; import `replicate_async.sync` before"
    )


def test_first_use_of_the_async_client_after_the_main_thread() -> None:
    """What is imported at the first use cannot be imported then, either: the error says what to do."""
    out = run(
        """
        import asyncio, threading
        import replicate_async as replicate
        async def main():
            async with replicate.Client() as client:
                await client.accounts.current()
        def work():
            threading.main_thread().join()
            try:
                asyncio.run(main())
            except Exception as error:
                print(type(error).__name__, error)
        threading.Thread(target=work).start()
        """
    )
    assert out.startswith("LoopClosed the main thread has ended")
    assert "make a client before that" in out


def test_daemon_thread_at_the_end(emulator: Emulator) -> None:
    """A daemon thread in the middle of a call is let go, and its prediction is cancelled."""
    out = run(
        """
        import threading
        from replicate_async import sync as replicate
        created = threading.Event()
        def work():
            try:
                for update in replicate.stream("emulator/writer", {"prompt": "x", "max_tokens": 2000}):
                    created.set()
            except BaseException as error:
                pass
        threading.Thread(target=work, daemon=True).start()
        created.wait()
        """
    )
    assert out == ""
    assert len(emulator.ledger.cancelled()) == 1


def test_sys_exit_in_a_call(emulator: Emulator) -> None:
    """A SIGTERM that is turned into an exit, as servers do, cancels the prediction."""
    out = run(
        """
        import os, signal, sys, threading
        from replicate_async import sync as replicate
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        replicate.accounts.current()
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        replicate.run("emulator/sleeper", {"seconds": 60})
        """
    )
    assert out == ""
    assert len(emulator.ledger.cancelled()) == 1


# -- Where there are no threads ----------------------------------------------------------------


def test_greenlets() -> None:
    """Where gevent has replaced threads, the first call says what is wrong, and does not hang."""
    pytest.importorskip("gevent")
    out = run(
        """
        from gevent import monkey
        monkey.patch_all()
        from replicate_async import sync as replicate
        try:
            replicate.accounts.current()
        except replicate.exceptions.LoopClosed as error:
            print(error)
        """,
        "-Wignore",
    )
    assert "gevent" in out


def test_imports() -> None:
    """The import of the facade imports neither aiohttp nor asyncio nor anyio."""
    out = run(
        """
        import sys
        from replicate_async import sync
        print(sorted({"aiohttp", "asyncio", "anyio"} & sys.modules.keys()))
        """
    )
    assert out == "[]\n"
