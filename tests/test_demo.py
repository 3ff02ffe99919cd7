"""The demo, as a newcomer starts it."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMMAND = (sys.executable, "-X", "dev", "-W", "error", "-m", "replicate_async", "demo")
SECONDS = 60
DEAD = "http://127.0.0.1:9"


def environment(**more: str) -> dict[str, str]:
    """Return an environment that knows no token and no API, and finds the package."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REPLICATE_")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **more}


def demo(cwd: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(**env),
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )


def size_of_png(content: bytes) -> tuple[int, int]:
    """Return width and height of a PNG, all of whose chunks and pixels are intact."""
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    position, pixels, kinds = 8, b"", []
    width = height = 0
    while position < len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        data = content[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack_from(">I", content, position + 8 + length)
        assert zlib.crc32(kind + data) == checksum
        kinds.append(kind)
        if kind == b"IHDR":
            width, height, depth, color = struct.unpack_from(">IIBB", data)
            assert (depth, color) == (8, 2)
        elif kind == b"IDAT":
            pixels += data
        position += 12 + length
    assert kinds[0] == b"IHDR"
    assert kinds[-1] == b"IEND"
    assert len(zlib.decompress(pixels)) == height * (1 + 3 * width)
    return width, height


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory in which the demo is run."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def done(place: Path) -> subprocess.CompletedProcess[str]:
    """Run the demo once, with an environment that would lead it elsewhere."""
    return demo(
        place,
        HTTP_PROXY=DEAD,
        http_proxy=DEAD,
        ALL_PROXY=DEAD,
        NO_PROXY="",
        REPLICATE_API_TOKEN="r8_somebody",
        REPLICATE_BASE_URL=DEAD,
    )


def test_demo(place: Path, done: subprocess.CompletedProcess[str]) -> None:
    """It runs models, saves a real picture, and tells of each step."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    saved = place / "demo-output" / "painting.png"
    width, height = size_of_png(saved.read_bytes())
    assert min(width, height) > 100
    said = done.stdout
    assert "hello Alice" in said
    assert f"PNG image, {width} x {height} pixels, {saved.stat().st_size} bytes" in said
    assert f"saved to {Path('demo-output', 'painting.png')}\n" in said
    assert "PredictionFailed" in said
    assert ".code is E1001" in said
    listed = re.findall(r"^   (\w{26})  (\S+) +(succeeded|failed) ", said, re.MULTILINE)
    assert [model for _, model, _ in listed] == [
        "emulator/failer",
        "emulator/describer",
        "emulator/painter",
        "emulator/writer",
        "emulator/sleeper",
        "replicate/hello-world",
    ]
    assert "6 predictions were created, for as many runs" in said


def test_progress(done: subprocess.CompletedProcess[str]) -> None:
    """The long run shows how far it is, while it runs, and never goes back."""
    shares = [int(found) for found in re.findall(r"^ +(\d+)% \[", done.stdout, re.MULTILINE)]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert len(set(shares)) > 3


def test_no_network(done: subprocess.CompletedProcess[str]) -> None:
    """A proxy, a token and an API of the environment do not matter: it talks to itself alone."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert "r8_somebody" not in done.stdout
    assert DEAD not in done.stdout + done.stderr


def test_nowhere_to_save(tmp_path: Path) -> None:
    """Where nothing can be saved, it says so at once, in one line, and exits with status 1."""
    (tmp_path / "file").write_bytes(b"")
    done = demo(tmp_path, "-o", str(tmp_path / "file" / "below"))
    assert done.returncode == 1
    assert not done.stdout
    [line] = done.stderr.splitlines()
    assert line.startswith(f"cannot save to {tmp_path / 'file' / 'below'}: ")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no terminals here")
def test_on_a_terminal(tmp_path: Path) -> None:
    """On a terminal the progress is one line that changes in place; `-o` says where to save."""
    target = tmp_path / "a" / "b"
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [*COMMAND, "-o", str(target)],
        cwd=tmp_path,
        env=environment(),
        stdout=theirs,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(theirs)
        said = b""
        try:
            while chunk := os.read(ours, 65536):
                said += chunk
        except OSError:  # the other end is closed
            pass
        finally:
            os.close(ours)
        status = process.wait(SECONDS)
    assert status == 0
    [live] = [line for line in said.split(b"\n") if b"100% [" in line]
    assert live.count(b"\r   ") > 3
    assert size_of_png((target / "painting.png").read_bytes()) == (512, 512)
    assert not (tmp_path / "demo-output").exists()
