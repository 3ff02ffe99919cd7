"""Commands that meet hostile models, odd answers, and files that cannot be written."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from replicate_async import __main__
from replicate_async._cli.outputs import to_json
from replicate_async._cli.terminal import visible, visible_json
from replicate_async.testing import Emulator

ROOT = Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, "-W", "error", "-m", "replicate_async")
SECONDS = 60
HOSTILE = "a\x1b[2Jb\x9b31mc\x07\r\x7fd\u202ee\ttab\nline"
SHOWN = "a\\x1b[2Jb\\x9b31mc\\x07\\x0d\\x7fd\\u202ee"


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Run an emulator with hostile models, which the commands of this process use."""
    with Emulator(rate_limits=False) as running:

        @running.model("acme/hostile", official=True)
        async def hostile(fail: bool = False) -> Any:
            if fail:
                raise ValueError(HOSTILE)
            return HOSTILE

        @running.model("acme/echo", official=True)
        async def echo(text: str) -> str:
            return text

        @running.model("acme/deep", official=True)
        async def deep() -> Any:
            value: Any = 1
            for _ in range(390):
                value = [value]
            return value

        for name, value in running.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        yield running


def on_terminal(*arguments: str) -> tuple[int, str]:
    """Run a command on a terminal; return its exit code and all that it writes there."""
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
    ) as process:
        os.close(follower)
        written = b""
        try:
            while chunk := os.read(leader, 65536):
                written += chunk
        except OSError:  # how Linux ends it
            pass
        finally:
            os.close(leader)
        return process.wait(SECONDS), written.decode("utf-8")


# -- Terminal escapes --------------------------------------------------------------------------

CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "acme/hostile"),
        ("stream", "acme/hostile"),
        ("run", "acme/hostile", "fail=true"),
        ("predictions", "list"),
    ],
    ids=" ".join,
)
def test_controls_are_shown_on_a_terminal(emulator: Emulator, arguments: tuple[str, ...]) -> None:
    """Output and errors of a model cannot control the terminal that they are printed on."""
    rewrite(emulator, "predictions.list", lambda body: put(body, model=HOSTILE, status=HOSTILE))
    on_server = __main__.main(["run", "acme/hostile", "fail=true"])
    assert on_server == 1
    code, written = on_terminal(*arguments)
    assert code == (1 if "fail=true" in arguments else 0)
    assert not CONTROLS.search(written.replace("\r\n", "\n"))
    assert SHOWN in written


def test_json_on_a_terminal(emulator: Emulator) -> None:
    """With `--json` a terminal gets the same value, with its controls as escapes of JSON."""
    code, written = on_terminal("run", "acme/hostile", "--json")
    assert code == 0
    assert not CONTROLS.search(written.replace("\r\n", "\n"))
    assert json.loads(written)["output"] == HOSTILE


def test_errors_of_map_on_a_terminal(emulator: Emulator, tmp_path: Path) -> None:
    """Next to its own progress, `map` writes no controls."""
    (tmp_path / "x.jsonl").write_text('{"fail": true}\n{"fail": "\\u001b[2J\\u009b"}\n{}\n')
    _, written = on_terminal("map", "acme/hostile", str(tmp_path / "x.jsonl"))
    assert not CONTROLS.search(written.replace("\r\n", "\n").replace("\r\x1b[K", ""))
    assert SHOWN in written


def test_raw_output_when_piped(emulator: Emulator) -> None:
    """A pipe or a file gets what the model has returned, byte by byte."""
    found = subprocess.run(
        [*COMMAND, "run", "acme/hostile"], capture_output=True, timeout=SECONDS, check=True
    )
    assert found.stdout == HOSTILE.encode() + b"\n"


@given(st.text())
def test_visible_texts_have_no_controls(text: str) -> None:
    """Whatever the text is, nothing in it acts on a terminal; what does not act stays."""
    for shown in (visible(text), visible_json(json.dumps(text, ensure_ascii=False))):
        assert not CONTROLS.search(shown)
        shown.encode()
    assert "\n" not in visible(text, lines=False)
    assert json.loads(visible_json(json.dumps(text, ensure_ascii=False))) == text
    plain = "".join(character for character in text if character.isalnum())
    assert visible(plain) == plain


# -- Odd answers -------------------------------------------------------------------------------


def rewrite(emulator: Emulator, operation: str, change: Callable[[Any], Any]) -> None:
    """Let the emulator change the JSON of an operation before it sends it."""

    async def middleware(request: Any, record: Any, answer: Any) -> web.StreamResponse:
        response: web.StreamResponse = await answer(request)
        if record.operation != operation or not isinstance(response, web.Response):
            return response
        assert isinstance(response.body, bytes)
        changed = change(json.loads(response.body))
        body = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
        return web.Response(body=body, headers={"Content-Type": "application/json"})

    emulator.middlewares.append(middleware)


def put(body: Any, **fields: Any) -> Any:
    """Change fields of a prediction, or of all in a list; `...` removes one."""
    for each in body.get("results", [body]):
        for name, value in fields.items():
            if value is ...:
                each.pop(name, None)
            else:
                each[name] = value
    return body


ODD: list[dict[str, Any]] = [
    {"created_at": "0001-01-01T00:00:00Z"},
    {"created_at": "9999-12-31T23:59:59.999999Z"},
    {"created_at": "0001-01-01T00:00:00+14:00", "completed_at": "9999-12-31T23:59:59-14:00"},
    {"created_at": "not a date"},
    {"created_at": -5},
    {"created_at": None, "model": None, "status": None},
    {"created_at": ..., "model": ..., "status": ..., "urls": ..., "metrics": ..., "input": ...},
    {"status": 5, "model": [], "version": {}, "metrics": "x", "input": 7, "logs": 1, "urls": "x"},
    {"metrics": {"predict_time": 10**400, "x": float("inf")}, "input": {"x": 10**4000}},
    {"metrics": {"predict_time": "x"}, "logs": "\ud800", "output": "\udfff", "error": "\ud800"},
    {"output": {"\ud800": ["\udcff"]}, "model": "\ud800", "status": "\udc80"},
    {"output": [[[[]]]], "error": {"a": "b"}, "source": 5, "data_removed": "yes"},
]


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Etc/GMT+12"])
@pytest.mark.parametrize("fields", ODD, ids=[str(fields)[:40] for fields in ODD])
def test_odd_predictions(
    emulator: Emulator,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fields: dict[str, Any],
    zone: str,
) -> None:
    """The commands show what the API sends, however odd it is."""
    import time

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    assert __main__.main(["run", "acme/echo", "text=a", "--json"]) == 0
    name = json.loads(capsys.readouterr().out)["id"]
    for operation in ("predictions.list", "predictions.get", "predictions.cancel"):
        rewrite(emulator, operation, lambda body: put(body, **fields))
    for arguments in (["list"], ["get", name], ["cancel", name]):
        for more in ([], ["--json"]):
            assert __main__.main(["predictions", *arguments, *more]) == 0
            found = capsys.readouterr()
            assert name in found.out
            assert not found.err


def test_commands_leave_the_process_as_it_was(emulator: Emulator) -> None:
    """Programs that call a command keep their limit of digits."""
    before = sys.get_int_max_str_digits()
    assert __main__.main(["run", "acme/echo", "text=a"]) == 0
    assert sys.get_int_max_str_digits() == before


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"5",
        b'{"results": null}',
        b'{"results": 5}',
        b'{"results": [5, null]}',
        b'{"results": [{"id": null}]}',
        b'{"results": [{"id": 5}], "next": 5}',
        b"[" * 100_000,
        b'{"results": [{"id": "a", "input": {"x": %s}}]}' % (b"9" * 150_000),
        b"\xff\xfe",
    ],
    ids=lambda body: str(body[:40]),
)
def test_answers_that_are_no_list(
    emulator: Emulator, capsys: pytest.CaptureFixture[str], body: bytes
) -> None:
    """What cannot be read is an error in a line, not a traceback."""
    rewrite(emulator, "predictions.list", lambda _: body)
    assert __main__.main(["predictions", "list"]) in (0, 1)
    assert "Traceback" not in capsys.readouterr().err


def test_deep_outputs(
    emulator: Emulator, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Outputs are printed and saved, however deep they are nested."""
    expected = "[" * 390 + "1" + "]" * 390
    assert __main__.main(["run", "acme/deep"]) == 0
    assert capsys.readouterr().out == f"{expected}\n"
    assert __main__.main(["run", "acme/deep", "-o", str(tmp_path)]) == 0
    assert (tmp_path / "output.json").read_text() == expected
    deep: Any = {"a": [1, "x", None]}
    for _ in range(50_000):
        deep = [deep, {"b": {}}]
    assert to_json(deep).startswith("[" * 50_000 + '{"a": [1, "x", null]}, {"b": {}}]')


@pytest.mark.parametrize("text", [chr(0xDCFF), chr(0xD800), "\x00"], ids=ascii)
def test_odd_arguments(emulator: Emulator, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Arguments that are no text are errors, or are passed on, but never tracebacks."""
    for arguments in (
        ["run", "acme/echo", f"text={text}"],
        ["run", f"acme/{text}", "text=a"],
        ["run", "acme/echo", f"text=@{text}"],
        ["run", "acme/echo", f"{text}=a"],
        ["run", "acme/echo", "text=a", "-o", f"/dev/null/{text}"],
        ["map", "acme/echo", f"/nowhere/{text}"],
        ["predictions", "get", text],
        ["predictions", "cancel", text],
    ):
        assert __main__.main(arguments) in (0, 1, 2)
        assert "Traceback" not in capsys.readouterr().err


# -- Files that cannot be read or written ------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("run", "acme/hostile"),
        ("stream", "acme/hostile"),
        ("predictions", "list"),
        ("demo",),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("how", ["closed pipe", "full", "closed"])
def test_standard_output_that_takes_nothing(
    emulator: Emulator, tmp_path: Path, arguments: tuple[str, ...], how: str
) -> None:
    """A reader that went away, a full disk, or no standard output at all: no traceback, and no success."""
    assert __main__.main(["run", "acme/hostile"]) == 0
    command = [*COMMAND, *arguments]
    if how == "closed":
        command = ["sh", "-c", '"$@" >&-', "sh", *command]
    reader, writer = os.pipe()
    os.close(reader)
    if how == "full":
        os.dup2(os.open("/dev/full", os.O_WRONLY), writer)
    found = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, timeout=SECONDS, cwd=tmp_path, check=False
    )
    os.close(writer)
    assert b"Traceback" not in found.stderr
    assert b"Exception ignored" not in found.stderr
    assert found.returncode in ((0, 1) if how == "closed" or "--help" in arguments else (1,))
    if how == "closed pipe" and arguments[0] not in ("run", "stream"):
        assert not found.stderr


def test_standard_error_that_takes_nothing(emulator: Emulator) -> None:
    """A full disk behind standard error changes nothing of the result."""
    with Path("/dev/full").open("wb") as full:
        found = subprocess.run(
            [*COMMAND, "run", "acme/hostile", "fail=true"],
            stderr=full,
            timeout=SECONDS,
            check=False,
        )
    assert found.returncode == 1


def test_inputs_that_cannot_be_read(
    emulator: Emulator, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A file of inputs that is a directory, or fails when it is read, is an error in a line."""
    for path in (str(tmp_path), "/proc/self/mem", "/nowhere"):
        assert __main__.main(["map", "acme/hostile", path]) in (1, 2)
        assert "Traceback" not in capsys.readouterr().err
    found = subprocess.run(
        ["sh", "-c", '"$@" <&-', "sh", *COMMAND, "map", "acme/hostile", "-"],
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert found.returncode in (1, 2)
    assert b"Traceback" not in found.stderr


def test_unexpected_errors(
    emulator: Emulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nobody expects is one line, too; the traceback is there for who asks for it."""
    from replicate_async._cli import commands

    monkeypatch.setattr(commands, "_when", lambda _: 1 / 0)
    assert __main__.main(["run", "acme/hostile"]) == 0
    assert __main__.main(["predictions", "list"]) == 1
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said
    assert "Traceback" not in said
    monkeypatch.setenv("REPLICATE_ASYNC_TRACEBACK", "1")
    assert __main__.main(["predictions", "list"]) == 1
    assert "Traceback" in capsys.readouterr().err


# -- Files that inputs name --------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a directory with files, one beside it, and links between them; it is the present one."""
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "data-2").mkdir()
    (tmp_path / "data-2" / "secret.txt").write_text("secret")
    (data / "ok.txt").write_text("fine")
    (data / "sub" / "ok.txt").write_text("fine")
    (data / "inner.txt").symlink_to(data / "ok.txt")
    (data / "outer.txt").symlink_to(tmp_path / "secret.txt")
    (data / "up").symlink_to(tmp_path)
    (data / "loop").symlink_to(data / "loop")
    (tmp_path / "into").symlink_to(data)
    monkeypatch.chdir(tmp_path)
    return data


def sent(emulator: Emulator) -> list[Any]:
    """Return the inputs that arrived, and forget them."""
    return [
        entry.json()["input"]
        for entry in emulator.ledger.requests(method="POST")
        if "predictions" in entry.path
    ]


INSIDE = (
    "data/ok.txt",
    "ok.txt",
    "sub/ok.txt",
    "data/inner.txt",
    "into/ok.txt",
    "data/sub/../ok.txt",
)
OUTSIDE = (
    "secret.txt",
    "/etc/passwd",
    "data/../secret.txt",
    "../secret.txt",
    "data/outer.txt",
    "outer.txt",
    "data/up/secret.txt",
    "data-2/secret.txt",
    "data/loop",
    "data",
    "",
    "/proc/self/environ",
    "nowhere.txt",
)


@pytest.mark.parametrize("form", ["jsonl", "nested", "csv", "run", "input"])
def test_files_from(
    emulator: Emulator, tree: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    """With `--files-from`, only files that really are in the directory are sent, however they are named."""

    def run(path: str, *options: str) -> int:
        match form:
            case "jsonl":
                Path("in.jsonl").write_text(json.dumps({"text": f"@{path}"}))
            case "nested":
                Path("in.jsonl").write_text(json.dumps({"text": "a", "more": [{"x": f"@{path}"}]}))
            case "csv":
                Path("in.jsonl").write_text(f"text\n@{path}\n")
            case "run":
                return __main__.main(["run", "acme/echo", f"text=@{path}", *options])
            case _:
                Path("in.jsonl").write_text("{}")
                options = ("-i", f"text=@{path}", *options)
        more = ["--format", "csv"] if form == "csv" else []
        return __main__.main(["map", "acme/any", "in.jsonl", *more, *options])

    @emulator.model("acme/any", official=True)
    def any_inputs(text: str, more: list[dict[str, Any]] | None = None) -> str:
        return "done"

    for path in OUTSIDE:
        assert run(path, "--files-from", "data") in (1, 2), path
        assert "Traceback" not in (said := capsys.readouterr().err)
        assert "--files-from" in said or "is a directory" in said.lower() or not path
    assert emulator.ledger.created() == []
    assert emulator.ledger.requests(operation="files.create") == []
    for path in INSIDE:
        assert run(path, "--files-from", str(tree)) == 0, path
    assert run("secret.txt") == 0
    created = len(emulator.ledger.created())
    assert run("/etc/passwd", "--no-files") == 0
    assert len(emulator.ledger.created()) == created + 1
    assert "@/etc/passwd" in json.dumps(sent(emulator)[-1])


def test_files_from_is_a_directory(
    emulator: Emulator, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no directory, and both options at once, are errors of the command."""
    for name in ("nowhere", "data/ok.txt"):
        assert __main__.main(["run", "acme/echo", "text=a", "--files-from", name]) == 2
        assert "--files-from" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        __main__.main(["run", "acme/echo", "text=a", "--files-from", "data", "--no-files"])
