"""The facade in the places where sync code lives: notebooks, web servers, workers, pools."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from replicate_async.testing import Emulator

from .conftest import QUIET_FORK, SECONDS, run

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@contextmanager
def serving(code: str) -> Iterator[str]:
    """Run a script that serves; it prints its port first. Yield where it is."""
    with subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def fetch(url: str) -> bytes:
    """Return what is at a URL."""
    with urllib.request.urlopen(url, timeout=SECONDS) as response:
        content: bytes = response.read()
        return content


# -- A notebook --------------------------------------------------------------------------------


def test_notebook(tmp_path: Path) -> None:
    """In a Jupyter kernel, whose thread runs a loop, it works as anywhere, and does not warn."""
    out = run(
        """
        import nbformat
        from nbclient import NotebookClient
        cells = [
            "from replicate_async import sync as replicate",
            "import asyncio; asyncio.get_running_loop().is_running()",
            "replicate.run('replicate/hello-world', {'text': 'Alice'})",
            "''.join(map(str, replicate.stream('emulator/writer', {'prompt': 'x', 'max_tokens': 3})))",
            "[image] = replicate.run('emulator/painter', {'prompt': 'x'})",
            "image.read()[1:4], (await image.aread())[1:4]",
            "len([p for p in replicate.predictions.list()])",
            "replicate.default_client().close()",
        ]
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
        NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
        for cell in notebook.cells:
            for output in cell.outputs:
                print(output.get("text") or output.data["text/plain"])
        """,
        "-Wignore",
    )
    lines = out.splitlines()
    assert lines[:2] == ["True", "'hello Alice'"]
    assert len(lines) == 5
    assert lines[3:] == ["(b'PNG', b'PNG')", "3"]


# -- Web servers -------------------------------------------------------------------------------

DJANGO = """
    import django
    from django.conf import settings
    settings.configure(
        ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="x", INSTALLED_APPS=[], MIDDLEWARE=[])
    django.setup()
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse, StreamingHttpResponse
    from django.urls import path
    from waitress.server import create_server
    from replicate_async import sync as replicate

    def hello(request, name):
        return HttpResponse(replicate.run("replicate/hello-world", input={"text": name}))

    def picture(request):
        [output] = replicate.run("emulator/painter", input={"prompt": "x"}, use_file_output=True)
        return HttpResponse(output, content_type="image/png")

    def text(request):
        events = replicate.stream("emulator/writer", input={"prompt": "x", "max_tokens": 5})
        return StreamingHttpResponse(str(event) for event in events)

    urlpatterns = [path("hello/<name>", hello), path("picture", picture), path("text", text)]
    server = create_server(get_wsgi_application(), host="127.0.0.1", port=0, threads=8)
    print(server.effective_port, flush=True)
    server.run()
"""

FLASK = """
    from flask import Flask, stream_with_context
    from waitress.server import create_server
    from replicate_async import sync as replicate

    app = Flask(__name__)

    @app.route("/hello/<name>")
    def hello(name):
        return replicate.run("replicate/hello-world", input={"text": name})

    @app.route("/picture")
    def picture():
        [output] = replicate.run("emulator/painter", input={"prompt": "x"}, use_file_output=True)
        return app.response_class(stream_with_context(output))

    @app.route("/text")
    def text():
        events = replicate.stream("emulator/writer", input={"prompt": "x", "max_tokens": 5})
        return app.response_class(stream_with_context(str(event) for event in events))

    server = create_server(app, host="127.0.0.1", port=0, threads=8)
    print(server.effective_port, flush=True)
    server.run()
"""


@pytest.mark.parametrize("code", [DJANGO, FLASK], ids=["django", "flask"])
def test_web_server(code: str) -> None:
    """Views under a WSGI server with threads share a client, pass files on and stream text."""
    with serving(code) as url, ThreadPoolExecutor(8) as pool:
        names = [f"n{number}" for number in range(16)]
        answers = pool.map(lambda name: fetch(f"{url}/hello/{name}").decode(), names)
        assert list(answers) == [f"hello {name}" for name in names]
        assert fetch(f"{url}/picture").startswith(b"\x89PNG")
        assert len(fetch(f"{url}/text").split()) >= 3


@forks
def test_preloading_server() -> None:
    """A server that loads and uses the application before it forks its workers has working workers."""
    code = """
        import os, signal, sys, threading
        from wsgiref.simple_server import WSGIRequestHandler, make_server
        from replicate_async import sync as replicate

        def app(environ, start_response):
            start_response("200 OK", [("X-Worker", str(os.getpid()))])
            return [replicate.run("replicate/hello-world", {"text": str(os.getpid())}).encode()]

        class Quiet(WSGIRequestHandler):
            def log_message(self, *args): pass

        def stop(*_):
            threading.Thread(target=server.shutdown).start()

        replicate.run("replicate/hello-world", {"text": "preloaded"})
        server = make_server("127.0.0.1", 0, app, handler_class=Quiet)
        server.socket.setblocking(False)  # of two workers that wake up, one finds nothing to accept
        workers = []
        for _ in range(2):
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGTERM, stop)
                server.serve_forever()
                sys.exit(0)
            workers.append(pid)
        print(server.server_port, flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            for pid in workers:
                os.kill(pid, signal.SIGTERM)
            for pid in workers:
                assert os.waitpid(pid, 0)[1] == 0
            assert replicate.run("replicate/hello-world", {"text": "x"}) == "hello x"
    """
    with serving(code) as url:
        for _ in range(6):
            with urllib.request.urlopen(url, timeout=SECONDS) as response:
                assert response.read() == f"hello {response.headers['X-Worker']}".encode()


# -- Workers and pools -------------------------------------------------------------------------

TASKS = """
    import os
    from celery import Celery
    from replicate_async import sync as replicate

    here = os.environ["CELERY_HERE"]
    app = Celery("tasks", broker="filesystem://", backend=f"file://{here}/results")
    app.conf.broker_transport_options = {
        "data_folder_in": f"{here}/queue", "data_folder_out": f"{here}/queue",
        "control_folder": f"{here}/control"}
    app.conf.task_serializer = app.conf.result_serializer = "json"

    # The application is loaded, and the client used, before the pool forks.
    PARENT = os.getpid(), replicate.accounts.current().username

    @app.task
    def hello(name):
        assert os.getpid() != PARENT[0]
        return replicate.run("replicate/hello-world", input={"text": name})

    @app.task
    def describe():
        [image] = replicate.run("emulator/painter", input={"prompt": "x"})
        return "".join(replicate.use("emulator/describer", streaming=False)(image=image))
"""


@forks
def test_celery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Celery worker with a prefork pool runs models, after the client was used in the parent."""
    for name in ("results", "queue", "control"):
        (tmp_path / name).mkdir()
    (tmp_path / "tasks.py").write_text(textwrap.dedent(TASKS), "utf-8")
    monkeypatch.setenv("CELERY_HERE", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ['PYTHONPATH']}")
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--pool=prefork"]
    options = ["--concurrency=2", "--without-mingle", "--without-gossip", "--without-heartbeat"]
    log = tmp_path / "log"
    with log.open("w") as output:
        worker = subprocess.Popen(
            [*command, *options, "--loglevel=WARNING"],
            cwd=tmp_path,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        out = run(
            """
            import tasks
            results = [tasks.hello.delay(f"n{n}") for n in range(6)] + [tasks.describe.delay()]
            print([result.get(timeout=50) for result in results])
            """,
            "-Wignore",
        )
    except BaseException:
        print(log.read_text("utf-8"))
        raise
    finally:
        worker.terminate()
        worker.wait(SECONDS)
    assert out.startswith(f"{[f'hello n{n}' for n in range(6)]}"[:-1])
    assert "PNG image" in out


def test_thread_pool() -> None:
    """A pool of threads shares the default client; the script ends by itself."""
    out = run(
        """
        from concurrent.futures import ThreadPoolExecutor
        from replicate_async import sync as replicate
        def work(number):
            return replicate.run("replicate/hello-world", {"text": str(number)})
        with ThreadPoolExecutor(16) as pool:
            print(sorted(set(pool.map(work, range(40)))) == sorted(f"hello {n}" for n in range(40)))
        """
    )
    assert out == "True\n"


def hello(number: int) -> str:
    """Run a model, in whatever process."""
    from replicate_async import sync as replicate

    output: str = replicate.run("replicate/hello-world", {"text": str(number)})
    return output


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_process_pool(method: str) -> None:
    """A pool of processes works, whichever way they are started."""
    if method == "fork":
        out = run(
            """
            from concurrent.futures import ProcessPoolExecutor
            from multiprocessing import get_context
            from tests.sync.test_places import hello
            print(hello(9))
            with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
                print(list(pool.map(hello, range(3))))
            """,
            QUIET_FORK,
        )
        assert out == "hello 9\n['hello 0', 'hello 1', 'hello 2']\n"
        return
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        assert list(pool.map(hello, range(3))) == ["hello 0", "hello 1", "hello 2"]


def test_many_scripts_are_stopped(emulator: Emulator, tmp_path: Path) -> None:
    """A script in the middle of a pool of runs, killed with SIGINT, leaves no prediction running."""
    code = """
        from concurrent.futures import ThreadPoolExecutor
        from replicate_async import sync as replicate
        with ThreadPoolExecutor(4) as pool:
            try:
                list(replicate.map("emulator/sleeper", [{"seconds": 60}] * 4))
            except KeyboardInterrupt:
                print("stopped")
    """
    from .conftest import interrupt

    out, err, took = interrupt(code, lambda: len(emulator.ledger.running()) == 4)
    assert (out, err) == ("stopped\n", "")
    assert len(emulator.ledger.cancelled()) == 4
    assert took < 10
