"""The built-in models: what they give for their inputs, and their files byte by byte."""

from __future__ import annotations

import asyncio
import base64
import re
import struct
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicate_async.testing import OutputFile
from replicate_async.testing._models import BuiltIn, built_in
from replicate_async.testing._png import Canvas

if TYPE_CHECKING:
    from collections.abc import Callable

MODELS = {f"{model.owner}/{model.name}": model for model in built_in()}
PROGRESS = re.compile(r"^\s*(\d+)%\s*\|.+?\|\s*(\d+)\/(\d+)")  # what clients look for


class Recorder:
    """A prediction that keeps what its code does, and reads data URIs."""

    def __init__(self) -> None:
        self.logs: str = ""
        self.items: list[object] = []

    async def fetch(self, url: str) -> bytes:
        """Return the content of a data URI."""
        return base64.b64decode(url.partition(";base64,")[2], validate=True)

    def log(self, text: str) -> None:
        """Keep the text."""
        self.logs += text

    async def emit(self, value: object) -> None:
        """Keep the item."""
        self.items.append(value)


async def run(name: str, input: dict[str, Any]) -> tuple[Any, str]:
    """Return output and logs of a prediction."""
    recorder = Recorder()
    code = MODELS[name].code
    assert code.violations(input) == []
    output = await code.predict(input, recorder)
    return (recorder.items if code.iterates else output), recorder.logs


def data_uri(content: bytes) -> str:
    """Return *content* as a data URI."""
    return "data:application/octet-stream;base64," + base64.b64encode(content).decode()


def progress(logs: str) -> list[tuple[int, int, int]]:
    """Return percentage, current and total of each line of progress."""
    found = (PROGRESS.match(line) for line in logs.splitlines())
    return [(int(m[1]), int(m[2]), int(m[3])) for m in found if m is not None]


def decoded(png: bytes) -> tuple[int, int, bytes, dict[str, str]]:
    """Return width, height, pixels and texts of a PNG, after checking all of its structure."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    chunks: list[tuple[bytes, bytes]] = []
    position = 8
    while position < len(png):
        (length,) = struct.unpack_from(">I", png, position)
        kind, content = png[position + 4 : position + 8], png[position + 8 : position + 8 + length]
        (checksum,) = struct.unpack_from(">I", png, position + 8 + length)
        assert checksum == zlib.crc32(kind + content)
        chunks.append((kind, content))
        position += 12 + length
    assert position == len(png)
    assert (chunks[0][0], chunks[-1]) == (b"IHDR", (b"IEND", b""))
    width, height, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert rest == [8, 2, 0, 0, 0]
    raw = zlib.decompress(b"".join(content for kind, content in chunks if kind == b"IDAT"))
    assert len(raw) == height * (1 + 3 * width)
    rows = [raw[y * (1 + 3 * width) : (y + 1) * (1 + 3 * width)] for y in range(height)]
    assert {row[0] for row in rows} == {0}
    texts: dict[str, str] = {}
    for kind, content in chunks:
        if kind == b"iTXt":
            keyword, _, text = content.partition(b"\0")
            assert text[:4] == b"\0\0\0\0"
            texts[keyword.decode("latin-1")] = text[4:].decode()
    return width, height, b"".join(row[1:] for row in rows), texts


@pytest.mark.parametrize("model", built_in(), ids=lambda model: model.name)
async def test_every_model_runs_its_example(model: BuiltIn) -> None:
    """The default input is valid, needs no network, and gives the same twice."""
    name = f"{model.owner}/{model.name}"
    if name == "emulator/failer":
        with pytest.raises(RuntimeError, match=r"\(E1000\)$"):
            await run(name, model.default_input)
    else:
        first, logs = await run(name, model.default_input)
        assert (first, logs) == await run(name, model.default_input)
        assert first
    assert model.description
    assert model.readme.startswith(f"# {model.name}\n")
    assert model.collections


def test_there_is_one_of_each_kind() -> None:
    """The set has a text, a file, an iterator, a file input, a failure, a long run, a training."""
    assert set(MODELS) == {
        "replicate/hello-world",
        "emulator/painter",
        "emulator/writer",
        "emulator/describer",
        "emulator/failer",
        "emulator/sleeper",
        "emulator/trainee",
    }
    official = {name for name, model in MODELS.items() if model.official}
    assert official == {"emulator/painter", "emulator/writer"}
    assert MODELS["emulator/painter"].code.output_is_file
    writer = MODELS["emulator/writer"].code
    assert (writer.iterates, writer.output_is_text) == (True, True)
    assert [name for name, model in MODELS.items() if model.code.trainable] == ["emulator/trainee"]


async def test_hello_world() -> None:
    """It is the model of the reference's examples: Alice is greeted."""
    model = MODELS["replicate/hello-world"]
    assert model.default_input == {"text": "Alice"}
    assert await run("replicate/hello-world", {"text": "Alice"}) == ("hello Alice", "")
    assert re.fullmatch(r"[0-9a-f]{64}", model.version or "")
    assert model.code.openapi_schema["components"]["schemas"]["Input"] == {
        "type": "object",
        "title": "Input",
        "required": ["text"],
        "properties": {
            "text": {
                "type": "string",
                "title": "Text",
                "description": "Text to prefix with 'hello '",
                "x-order": 0,
            }
        },
    }


async def test_painter_draws_images() -> None:
    """Each output is a PNG of the size asked for; prompt and seed decide what is on it."""
    size = {"width": 100, "height": 80, "steps": 1}
    [first, second], _ = await run("emulator/painter", {"prompt": "a", "num_outputs": 2, **size})
    assert isinstance(first, OutputFile)
    assert (first.name, second.name) == ("out-0.png", "out-1.png")
    assert first.content_type == "image/png"
    width, height, pixels, texts = decoded(first.content)
    assert (width, height) == (100, 80)
    assert len(set(struct.iter_unpack("BBB", pixels))) > 50, "a picture, not an empty page"
    assert texts["Title"] == "a"
    [other], _ = await run("emulator/painter", {"prompt": "b", **size})
    [seeded], _ = await run("emulator/painter", {"prompt": "a", "seed": 5, **size})
    [again], _ = await run("emulator/painter", {"prompt": "a", "seed": 5, **size})
    assert seeded == again
    assert len({decoded(file.content)[2] for file in (first, second, other, seeded)}) == 4


async def test_painter_logs_progress() -> None:
    """The logs have lines that clients understand as progress, from none to all."""
    _, logs = await run("emulator/painter", {"prompt": "a", "width": 64, "height": 64})
    assert progress(logs) == [(0, 0, 4), (25, 1, 4), (50, 2, 4), (75, 3, 4), (100, 4, 4)]


@given(st.text(), st.integers(0, 2**32 - 1))
@settings(max_examples=8, deadline=None)
def test_painter_paints_any_prompt(prompt: str, seed: int) -> None:
    """Any text and any seed make a valid image that keeps the prompt."""
    value = {"prompt": prompt, "seed": seed, "width": 64, "height": 64, "steps": 1}
    [file], _ = asyncio.run(run("emulator/painter", value))
    assert decoded(file.content)[3] == {"Title": prompt, "Comment": f"seed {seed}"}


COLOURS = st.tuples(*[st.integers(0, 255)] * 3)
NUMBERS = st.floats(-50, 90)


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.lists(st.tuples(NUMBERS, NUMBERS), min_size=3, max_size=8),
    st.tuples(NUMBERS, NUMBERS, st.floats(0, 60)),
    COLOURS,
    COLOURS,
    st.floats(0, 1),
)
def test_canvas_draws_anything(
    width: int,
    height: int,
    points: list[tuple[float, float]],
    disc: tuple[float, float, float],
    one: tuple[int, int, int],
    two: tuple[int, int, int],
    alpha: float,
) -> None:
    """Shapes of any form and place keep the size of the picture, and mix only its colours."""
    canvas = Canvas(width, height)
    canvas.gradient([one, two], 0, height)
    canvas.polygon(points, one, alpha)
    canvas.disc(*disc, two, alpha)
    canvas.fade(one, disc[0], disc[0] + 10, alpha)
    got_width, got_height, pixels, _ = decoded(canvas.png())
    assert (got_width, got_height) == (width, height)
    for channel in range(3):
        low, high = sorted((one[channel], two[channel]))
        assert low <= min(pixels[channel::3])
        assert max(pixels[channel::3]) <= high


def test_canvas_fills_exactly() -> None:
    """A square along the edges of pixels is filled to its edges, and not beyond."""
    canvas = Canvas(4, 4)
    canvas.polygon([(1, 1), (3, 1), (3, 3), (1, 3)], (255, 0, 0), 1)
    _, _, pixels, _ = decoded(canvas.png())
    assert [pixels[3 * i] for i in range(16)] == [0, 0, 0, 0] + [0, 255, 255, 0] * 2 + [0] * 4
    assert set(pixels[1::3]) == {0}
    with pytest.raises(ValueError, match="0 x 4"):
        Canvas(0, 4)


async def test_writer_yields_tokens() -> None:
    """It yields as many tokens as asked for; spaces and line ends belong to them."""
    value = {"prompt": "the sea", "max_tokens": 200, "delay": 0}
    tokens, _ = await run("emulator/writer", value)
    assert len(tokens) == 200
    text = "".join(tokens)
    assert not re.search(r" [.,]|\n |  |^ ", text)
    assert any(token.startswith(" ") for token in tokens)
    assert "\n\n" in tokens
    assert (await run("emulator/writer", {**value, "max_tokens": 9}))[0] == tokens[:9]
    verse, _ = await run("emulator/writer", {**value, "style": "verse"})
    assert "\n" in verse
    others = [{**value, "prompt": "x"}, {**value, "seed": 1}, {**value, "seed": 2}]
    texts = {text, *["".join((await run("emulator/writer", other))[0]) for other in others]}
    assert len(texts) == 4


JPEG = (
    b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    b"\xff\xff\xdb\x00\x04\x00\x00"  # a fill byte, and a segment without meaning
    b"\xff\xc2\x00\x11\x08\x00\x30\x00\x40\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01"
)
LOSSY = b"RIFF\x00\x00\x00\x00WEBPVP8 \x0a\x00\x00\x00\x00\x00\x00\x9d\x01\x2a\x40\x00\x30\x00"
LOSSLESS = b"RIFF\x00\x00\x00\x00WEBPVP8L\x05\x00\x00\x00\x2f" + struct.pack("<I", 63 | 47 << 14)
EXTENDED = b"RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00\x3f\x00\x00\x2f\x00\x00"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (Canvas(64, 48).png(), "PNG"),
        (b"GIF89a\x40\x00\x30\x00\x00\x00\x00", "GIF"),
        (b"GIF87a\x40\x00\x30\x00", "GIF"),
        (JPEG, "JPEG"),
        (LOSSY, "WebP"),
        (LOSSLESS, "WebP"),
        (EXTENDED, "WebP"),
    ],
)
async def test_describer_reads_images(content: bytes, kind: str) -> None:
    """Format and size are read from the file itself."""
    text, _ = await run("emulator/describer", {"image": data_uri(content)})
    assert text == f"{kind} image, 64 x 48 pixels, {len(content)} bytes"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff\xe0\x00",
        b"GIF89a\x01",
        b"RIFF....WEBPVP8X",
    ],
)
async def test_describer_refuses_other_files(content: bytes) -> None:
    """A file that is no image, or the beginning of one, is an error that says so."""
    with pytest.raises(ValueError, match=f"^not an image: a file of {len(content)} bytes"):
        await run("emulator/describer", {"image": data_uri(content)})


def reader(content: bytes) -> Callable[[], object]:
    """Return a call of the describer."""
    return lambda: asyncio.run(run("emulator/describer", {"image": data_uri(content)}))


@given(
    st.sampled_from(
        [JPEG[:3], JPEG[:20], LOSSY[:16], EXTENDED[:16], b"\x89PNG\r\n\x1a\n", b"GIF89a"]
    ),
    st.binary(max_size=60),
)
@settings(deadline=None)
def test_describer_survives_any_file(start: bytes, rest: bytes) -> None:
    """A damaged file gives a description or the error, nothing else."""
    try:
        described: object = reader(start + rest)()
    except ValueError as error:
        described = str(error)
    assert "image" in str(described)


async def test_failer_fails_as_asked() -> None:
    """The error is the text given, codes of the platform included."""
    with pytest.raises(RuntimeError) as caught:
        await run("emulator/failer", {"error": "Out of memory (E1001)"})
    assert str(caught.value) == "Out of memory (E1001)"


async def test_sleeper_logs_while_it_runs() -> None:
    """It runs as long as asked, with one line of progress for each step."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    text, logs = await run("emulator/sleeper", {"seconds": 0.1, "steps": 5})
    assert loop.time() - start >= 0.09
    assert text == "slept for 0.1 s in 5 steps"
    assert [current for _, current, _ in progress(logs)] == [0, 1, 2, 3, 4, 5]


async def test_trainee_is_trained() -> None:
    """A training makes weights of its images, and weights change a prediction."""
    model = MODELS["emulator/trainee"]
    weights: list[bytes] = []
    for images in (b"one", b"two"):
        recorder = Recorder()
        value = {"input_images": data_uri(images), "steps": 2}
        assert model.code.violations(value, component="TrainingInput") == []
        output: Any = await model.code.train(value, recorder)
        assert progress(recorder.logs) == [(50, 1, 2), (100, 2, 2)]
        weights.append(output["weights"].content)
    texts = {
        (await run("emulator/trainee", {"prompt": "x", "replicate_weights": data_uri(each)}))[0]
        for each in weights
    }
    texts.add((await run("emulator/trainee", {"prompt": "x"}))[0])
    assert len(texts) == 3
