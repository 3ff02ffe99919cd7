"""The built-in models: one of each kind that users can meet.

Each is deterministic: equal inputs give equal outputs, on every Python.
"""

from __future__ import annotations

import colorsys
import functools
import hashlib
import itertools
import math
import random
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import anyio
import attrs

from ._authoring import AsyncConcatenateIterator, Input, OutputFile, log
from ._execution import Code
from ._png import Canvas
from ._store import Collection, Model, Store

__all__ = ("BuiltIn", "add_built_in", "built_in")

_COLLECTIONS: Mapping[str, str] = {
    "examples": "Small models to try things with.",
    "official": "Models that are always on.",
    "text-to-image": "Models that make images from text.",
    "language-models": "Models that write text.",
    "image-to-text": "Models that describe images.",
    "trainable": "Models that can be trained.",
}

_T = TypeVar("_T")


@attrs.frozen
class BuiltIn:
    """A built-in model."""

    owner: str
    name: str
    description: str
    """One sentence."""
    code: Code
    """The code of its only version."""
    readme: str
    """Markdown."""
    default_input: dict[str, Any]
    """The input of its default example."""
    official: bool = False
    """Whether it is an official model, which shows no versions."""
    collections: tuple[str, ...] = ()
    """Slugs of the collections that it is in."""
    version: str | None = None
    """The id of its version, if it has to be a certain one."""
    train_destination: str | None = None
    """Name of a model of the account that its trainings may be pushed to."""


@functools.cache
def _models() -> tuple[BuiltIn, ...]:
    return (
        BuiltIn(
            owner="replicate",
            name="hello-world",
            description="A tiny model that says hello",
            code=Code(_hello_world),
            readme="# hello-world\n\nSays hello to the text you give it.\n",
            default_input={"text": "Alice"},
            collections=("examples",),
            version="5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa",
        ),
        BuiltIn(
            owner="emulator",
            name="painter",
            description="Paints a landscape from a prompt",
            code=Code(_painter),
            readme=(
                "# painter\n\nPaints PNG images: the prompt and the seed decide the hour, the "
                "weather and the mountains. Logs a progress bar.\n"
            ),
            default_input={"prompt": "a quiet valley at dawn"},
            official=True,
            collections=("text-to-image", "official"),
        ),
        BuiltIn(
            owner="emulator",
            name="writer",
            description="Writes a text, token by token",
            code=Code(_writer),
            readme=(
                "# writer\n\nA language model of few words. Its tokens begin with spaces and line "
                "ends, as those of large ones do.\n"
            ),
            default_input={"prompt": "Tell me about the sea", "max_tokens": 32},
            official=True,
            collections=("language-models", "official"),
        ),
        BuiltIn(
            owner="emulator",
            name="describer",
            description="Says format and size of an image",
            code=Code(_describer),
            readme="# describer\n\nReads PNG, JPEG, GIF and WebP files. Fails for others.\n",
            default_input={"image": _SAMPLE_IMAGE},
            collections=("image-to-text",),
        ),
        BuiltIn(
            owner="emulator",
            name="failer",
            description="Fails with the error you give it",
            code=Code(_failer),
            readme=(
                "# failer\n\nEvery prediction fails. End the error in a code in parentheses, such "
                "as `(E1001)`, to see a failure of the platform.\n"
            ),
            default_input={"error": "Prediction failed for an unknown reason. (E1000)"},
            collections=("examples",),
        ),
        BuiltIn(
            owner="emulator",
            name="sleeper",
            description="Runs as long as you like and logs its progress",
            code=Code(_sleeper),
            readme="# sleeper\n\nRuns for `seconds`, with `steps` lines of a progress bar.\n",
            default_input={"seconds": 0.2, "steps": 4},
            collections=("examples",),
        ),
        BuiltIn(
            owner="emulator",
            name="trainee",
            description="Can be trained",
            code=Code(_trainee, train=_train),
            readme=(
                "# trainee\n\nIts training reads a file of images and makes weights of it. Give "
                "them to a prediction as `replicate_weights`.\n"
            ),
            default_input={"prompt": "a portrait"},
            collections=("trainable",),
            train_destination="trained",
        ),
    )


def built_in() -> list[BuiltIn]:
    """Return the built-in models; they are made once and shared."""
    return list(_models())


def add_built_in(store: Store, account: str) -> None:
    """Add the built-in models to a store, with their collections and the destinations of their trainings.

    Args:
        store: The store.
        account: User name of the account that owns these destinations.

    Raises:
        ValueError: *account* cannot be the owner of a model.
    """
    for known in built_in():
        model = Model(
            known.owner,
            known.name,
            store.tick(),
            official=known.official,
            description=known.description,
            readme=known.readme,
            tags=tuple(known.collections),
        )
        store.models[model.full_name] = model
        store.add_version(model, known.code, id=known.version, cog_version=known.code.cog_version)
        for slug in known.collections:
            collection = store.collections.get(slug)
            if collection is None:
                name = slug.replace("-", " ").capitalize()
                text = _COLLECTIONS.get(slug, name)
                collection = Collection(slug, name, text, f"## Overview\n\n{text}")
                store.collections[slug] = collection
            collection.models.append(model)
        if known.train_destination is not None:
            destination = store.model(f"{account}/{known.train_destination}")
            destination.description = "A place for trained versions"


class _Dice:
    """Choices that depend on nothing but *words*.

    Of `random.Random` only `random()` keeps its sequence over versions of Python.
    """

    def __init__(self, *words: object) -> None:
        digest = hashlib.sha256("\0".join(map(str, words)).encode(errors="replace")).digest()
        self._next: Callable[[], float] = random.Random(int.from_bytes(digest)).random

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self._next()

    def number(self, low: int, high: int) -> int:
        """Return an integer from *low* to *high*, both included."""
        return low + int((high - low + 1) * self._next())

    def pick(self, choices: Sequence[_T]) -> _T:
        return choices[int(len(choices) * self._next())]


def _progress(done: int, total: int, seconds: float) -> str:
    """Return a line of a progress bar, as tqdm writes it (:api:`logs-and-progress`).

    Args:
        done: Steps done.
        total: Steps in all.
        seconds: How long the steps done took, as it is to be shown.

    """
    share = done / total
    bar = "█" * int(10 * share)
    rate = done / seconds if seconds > 0 else 0.0
    remaining = (total - done) / rate if rate else 0.0
    speed = f"{rate:.2f}it/s" if rate else "?it/s"
    times = f"{_clock(seconds)}<{_clock(remaining) if rate else '?'}"
    return f"{int(100 * share):3d}%|{bar:<10}| {done}/{total} [{times}, {speed}]\n"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes:02d}:{rest:02d}"


async def _hello_world(
    text: Annotated[str, Input(description="Text to prefix with 'hello '")],
) -> str:
    return "hello " + text


# Images


def _painter(
    prompt: Annotated[str, Input(description="What to paint")],
    seed: Annotated[
        int | None, Input(description="Other pictures of the same prompt", ge=0, le=4294967295)
    ] = None,
    width: Annotated[int, Input(description="Width in pixels", ge=64, le=1024)] = 512,
    height: Annotated[int, Input(description="Height in pixels", ge=64, le=1024)] = 512,
    num_outputs: Annotated[int, Input(description="Number of images", ge=1, le=4)] = 1,
    steps: Annotated[int, Input(description="Steps of the progress bar", ge=1, le=50)] = 4,
) -> list[OutputFile]:
    seed = _Dice(prompt).number(0, 2**31 - 1) if seed is None else seed
    log(f"Using seed: {seed}\n")
    duration = 0.2  # whatever the steps are
    files: list[OutputFile] = []
    log(_progress(0, steps, 0))
    for step in range(1, steps + 1):
        time.sleep(duration / steps)
        log(_progress(step, steps, step * duration / steps))
    for index in range(num_outputs):
        content = _landscape(prompt, seed + index, width, height)
        files.append(OutputFile(content, f"out-{index}.png", "image/png"))
    return files


def _landscape(prompt: str, seed: int, width: int, height: int) -> bytes:
    """Return a PNG: a sky with a sun or moon over ridges that fade into the distance."""
    dice = _Dice(prompt, seed)
    is_night = dice.between(0, 1) < 0.25
    hue = dice.between(0, 1)
    accent = (hue + dice.pick((0.08, 0.12, 0.42, 0.5))) % 1

    def color(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
        red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
        return round(255 * red), round(255 * green), round(255 * blue)

    if is_night:
        zenith, middle, horizon = (
            color(hue, 0.7, 0.1),
            color(hue, 0.6, 0.25),
            color(accent, 0.45, 0.5),
        )
        light = color(0.14, 0.12, 0.97)
    else:
        zenith, middle, horizon = (
            color(hue, 0.5, 0.75),
            color(hue, 0.3, 0.92),
            color(accent, 0.45, 1),
        )
        light = color(accent - 0.03, 0.25, 1)
    canvas = Canvas(width, height)
    canvas.gradient([zenith, middle, horizon, horizon], 0, height)
    size = min(width, height)
    if is_night:
        for _ in range(90):
            x, y = dice.between(0, width), height * dice.between(0, 0.6)
            canvas.disc(
                x, y, max(0.7, size * dice.between(0.001, 0.004)), light, dice.between(0.3, 1)
            )
    x, y = width * dice.between(0.2, 0.8), height * dice.between(0.2, 0.45)
    radius = size * dice.between(0.05, 0.1)
    for ring in range(9, 0, -1):
        canvas.disc(x, y, radius * (1 + 0.3 * ring), light, 0.06)
    canvas.disc(x, y, radius, light, 1)

    layers = dice.number(4, 6)
    for layer in range(layers):
        depth = (layer + 1) / layers
        base = height * (0.45 + 0.4 * depth)
        ridge = _ridge(dice, base, height * dice.between(0.1, 0.22), width)
        near = color(hue + 0.03 * layer, 0.55, 0.08 if is_night else 0.2)
        shade = tuple(round(f + (n - f) * depth**0.8) for f, n in zip(horizon, near, strict=True))
        canvas.polygon([*ridge, (width, height), (0, height)], (shade[0], shade[1], shade[2]), 1)
        # Mist in the valley behind the next ridge.
        canvas.fade(horizon, base, base + height * 0.12, 0.18 * (1 - depth))
    return canvas.png({"Title": prompt, "Comment": f"seed {seed}"})


def _ridge(dice: _Dice, base: float, swing: float, width: int) -> list[tuple[float, float]]:
    """Return the points of a ridge from left to right, by displacing middles."""
    heights = [dice.between(-swing, swing), dice.between(-swing, swing)]
    while len(heights) < 65:
        swing *= 0.52
        middles = [
            (left + right) / 2 + dice.between(-swing, swing)
            for left, right in itertools.pairwise(heights)
        ]
        heights = [each for pair in zip(heights, middles, strict=False) for each in pair] + heights[
            -1:
        ]
    step = width / (len(heights) - 1)
    return [(index * step, base + each) for index, each in enumerate(heights)]


def _describer(
    image: Annotated[Path, Input(description="PNG, JPEG, GIF or WebP")],
) -> str:
    content = image.read_bytes()
    found = _format_and_size(content)
    if found is None:
        start = content[:16]
        raise ValueError(
            f"not an image: a file of {len(content)} bytes that begins with {start!r} is neither "
            "PNG nor JPEG, GIF or WebP"
        )
    kind, width, height = found
    log(f"read {len(content)} bytes\n")
    return f"{kind} image, {width} x {height} pixels, {len(content)} bytes"


def _format_and_size(content: bytes) -> tuple[str, int, int] | None:
    """Return format, width and height of an image, or None for anything else."""
    try:
        if content.startswith(b"\x89PNG\r\n\x1a\n") and content[12:16] == b"IHDR":
            return "PNG", *struct.unpack_from(">II", content, 16)
        if content.startswith((b"GIF87a", b"GIF89a")):
            return "GIF", *struct.unpack_from("<HH", content, 6)
        if content.startswith(b"\xff\xd8\xff"):
            return _jpeg_size(content)
        if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
            return _webp_size(content)
    except (struct.error, IndexError):  # the file ends too early
        pass
    return None


def _jpeg_size(content: bytes) -> tuple[str, int, int] | None:
    position = 2
    while True:
        while content[position] == 0xFF and content[position + 1] == 0xFF:  # padding
            position += 1
        if content[position] != 0xFF:
            return None
        marker = content[position + 1]
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a segment
            position += 2
            continue
        # Frame headers are C0 to CF, but for tables (C4, CC) and the reserved C8.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", content, position + 5)
            return "JPEG", width, height
        if marker in (0xD9, 0xDA):  # end of the image, or its pixels without a frame
            return None
        (length,) = struct.unpack_from(">H", content, position + 2)
        position += 2 + length


def _webp_size(content: bytes) -> tuple[str, int, int] | None:
    chunk = content[12:16]
    if chunk == b"VP8 " and content[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", content, 26)
        return "WebP", width & 0x3FFF, height & 0x3FFF
    if chunk == b"VP8L" and content[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", content, 21)
        return "WebP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8X":
        width = int.from_bytes(content[24:27], "little") + 1
        height = int.from_bytes(content[27:30], "little") + 1
        return ("WebP", width, height) if len(content) >= 30 else None
    return None


# Text


_SUBJECTS = (
    "The sea", "A lamp", "The quiet town", "Every harbour", "An old map", "The first snow",
    "A paper boat", "The long road", "Morning", "The clockmaker", "A small engine", "The garden",
)  # fmt: skip
_VERBS = (
    "remembers", "carries", "waits for", "listens to", "draws", "forgets", "follows", "keeps",
    "answers", "borrows", "mends", "welcomes",
)  # fmt: skip
_OBJECTS = (
    "the light", "a distant bell", "what the wind left", "the names of stars", "no one",
    "an unfinished letter", "the slow tide", "seven grey stones", "its own echo", "the rain",
    "a door without a house", "the colour blue",
)  # fmt: skip
_ENDINGS = (
    "until evening", "without a sound", "as if by habit", "again and again", "in its own time",
    "and smiles",
)  # fmt: skip


async def _writer(
    prompt: Annotated[str, Input(description="What to write about")],
    seed: Annotated[int | None, Input(description="Other texts for the same prompt", ge=0)] = None,
    max_tokens: Annotated[int, Input(description="Most tokens to write", ge=1, le=4096)] = 64,
    delay: Annotated[float, Input(description="Seconds from token to token", ge=0, le=10)] = 0.02,
    style: Annotated[Literal["prose", "verse"], Input(description="Form of the text")] = "prose",
) -> AsyncConcatenateIterator[str]:
    for token in _tokens(_Dice(prompt, seed, style), max_tokens, style):
        await anyio.sleep(delay)
        yield token


def _tokens(dice: _Dice, count: int, style: str) -> list[str]:
    """Return a text as tokens: words with the space before them, punctuation, line ends."""
    tokens: list[str] = []
    sentences = 0
    while len(tokens) < count:
        words = f"{dice.pick(_SUBJECTS)} {dice.pick(_VERBS)} {dice.pick(_OBJECTS)}".split()
        if dice.between(0, 1) < 0.4:
            words += ["\0", *dice.pick(_ENDINGS).split()]
        for index, word in enumerate(words):
            is_line_start = not tokens or (index == 0 and tokens[-1].endswith("\n"))
            tokens.append("," if word == "\0" else word if is_line_start else " " + word)
        tokens.append(".")
        sentences += 1
        if style == "verse":
            tokens.append("\n\n" if sentences % 4 == 0 else "\n")
        elif sentences % 3 == 0:
            tokens.append("\n\n")
    return tokens[:count]


# Behaviour


async def _failer(
    error: Annotated[
        str, Input(description="The error to fail with")
    ] = "Prediction failed for an unknown reason. (E1000)",
    after: Annotated[float, Input(description="Seconds until then", ge=0, le=3600)] = 0,
) -> str:
    log("about to fail\n")
    await anyio.sleep(after)
    raise RuntimeError(error)


async def _sleeper(
    seconds: Annotated[float, Input(description="How long to run", ge=0, le=3600)] = 2,
    steps: Annotated[int, Input(description="Lines of progress to log", ge=1, le=1000)] = 4,
) -> str:
    log(_progress(0, steps, 0))
    for step in range(1, steps + 1):
        await anyio.sleep(seconds / steps)
        log(_progress(step, steps, step * seconds / steps))
    return f"slept for {seconds:g} s in {steps} steps"


def _trainee(
    prompt: Annotated[str, Input(description="What to say")],
    replicate_weights: Annotated[
        Path | None, Input(description="Weights that a training has made")
    ] = None,
) -> str:
    if replicate_weights is None:
        return f"untrained: {prompt}"
    return f"trained as {_name_of(replicate_weights.read_bytes())}: {prompt}"


def _train(
    input_images: Annotated[Path, Input(description="The images, as an archive")],
    steps: Annotated[int, Input(description="How long to train", ge=1, le=1000)] = 4,
) -> OutputFile:
    content = input_images.read_bytes()
    log(f"training on {len(content)} bytes\n")
    duration = 0.2  # whatever the steps are
    for step in range(1, steps + 1):
        time.sleep(duration / steps)
        loss = math.exp(-step / steps)
        log(f"step {step}/{steps}: loss {loss:.4f}\n")
        log(_progress(step, steps, step * duration / steps))
    weights = hashlib.sha256(content + struct.pack(">I", steps)).digest() * 32
    return OutputFile(weights, "trained_model.tar", "application/x-tar")


def _name_of(weights: bytes) -> str:
    """Return a short name that other weights are unlikely to have."""
    return hashlib.sha256(weights).hexdigest()[:8]


_SAMPLE_IMAGE = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
