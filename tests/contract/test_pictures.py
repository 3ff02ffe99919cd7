"""Pictures of Pillow and NumPy: as inputs of models, and out of their outputs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from replicate_async import Client, exceptions, sync
from replicate_async.testing import Emulator


class Gallery:
    """A model that takes any picture, and keeps what it was sent."""

    def __init__(self, emulator: Emulator) -> None:
        self.seen: list[bytes] = []
        emulator.add_model("acme/looker", self.look, official=True)

    def look(self, image: Path) -> str:
        """Look at a picture."""
        self.seen.append(image.read_bytes())
        return "seen"


@pytest.mark.parametrize("strategy", ["url", "base64"])
@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "RGBa", "F"]
)
async def test_images_of_pillow(
    emulator: Emulator, client: Client, mode: str, strategy: Any
) -> None:
    """An image of any mode is sent as PNG; the function of a model takes it, too."""
    gallery = Gallery(emulator)
    image = (
        Image.new("RGBA", (5, 3), (200, 100, 50, 255))
        .convert("RGB" if mode not in ("RGBA", "RGBa", "LA") else "RGBA")
        .convert(mode)
    )
    kept = image.copy()
    given = {"image": image}
    assert await client.run("acme/looker", given, file_encoding_strategy=strategy) == "seen"
    assert await client.use("acme/looker")(image=image) == "seen"
    for content in gallery.seen:
        with Image.open(io.BytesIO(content)) as sent:
            assert (sent.format, sent.size) == ("PNG", (5, 3))
    assert image.tobytes() == kept.tobytes()


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (4, 6, 2), (4, 6, 3), (4, 6, 4)])
async def test_arrays_of_numpy(emulator: Emulator, client: Client, shape: tuple[int, ...]) -> None:
    """An array of bytes with the shape of a picture is sent as PNG, with the same pixels."""
    gallery = Gallery(emulator)
    pixels = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    for given in (pixels, np.asfortranarray(pixels), pixels[::-1][::-1]):
        await client.run("acme/looker", {"image": given})
    assert len(set(gallery.seen)) == 1
    with Image.open(io.BytesIO(gallery.seen[0])) as sent:
        assert np.array_equal(np.asarray(sent).reshape(shape), pixels)


async def test_a_mask(emulator: Emulator, client: Client) -> None:
    """An array of truth values is a black and white picture."""
    gallery = Gallery(emulator)
    await client.run("acme/looker", {"image": np.eye(3, dtype=bool)})
    with Image.open(io.BytesIO(gallery.seen[0])) as sent:
        assert np.array_equal(np.asarray(sent), np.eye(3) * 255)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2, 5), np.uint8),
        np.zeros(3, np.uint8),
        np.zeros((2, 2)),
        np.zeros((0, 3), np.uint8),
    ],
)
async def test_other_arrays_are_numbers(emulator: Emulator, client: Client, array: Any) -> None:
    """What is no picture is sent as lists of numbers, as before."""
    given = {"image": b"picture", "x": array}
    prediction = await client.predictions.create(model="emulator/describer", input=given)
    assert prediction.input["x"] == array.tolist()


async def test_each_content_is_uploaded_once(emulator: Emulator, client: Client) -> None:
    """Equal pictures are one upload; one that was changed is another."""
    Gallery(emulator)
    pixels: Any = np.zeros((2, 2, 3), np.uint8)
    image = Image.fromarray(pixels)
    for _ in range(2):
        await client.run("acme/looker", {"image": pixels})
        await client.run("acme/looker", {"image": image})
    before = len(emulator.ledger.requests(operation="files.create"))
    pixels[0, 0] = 7
    await client.run("acme/looker", {"image": pixels})
    after = len(emulator.ledger.requests(operation="files.create"))
    assert before <= 2
    assert after == before + 1


async def test_pictures_in_a_journal(emulator: Emulator, client: Client, tmp_path: Path) -> None:
    """A batch recognises its pictures."""
    gallery = Gallery(emulator)
    inputs = [{"image": Image.new("L", (2, 2), value)} for value in (1, 2)]
    for _ in range(2):
        outcomes = await client.map("acme/looker", inputs, journal=tmp_path / "j.db").collect()
        assert [outcome.error for outcome in outcomes] == [None, None]
    assert len(gallery.seen) == 2


async def test_an_output_as_a_picture(client: Client) -> None:
    """`pil()` returns a loaded picture; what is none is an error of ours."""
    [file] = await client.run("emulator/painter", {"prompt": "x", "width": 64, "height": 96})
    assert (await file.pil()).size == (64, 96)
    with pytest.raises(exceptions.FileOutputError, match="Pillow cannot read"):
        await client.output("data:text/plain,hello").pil()


def test_in_the_facade(emulator: Emulator) -> None:
    """All of it works without asyncio."""
    gallery = Gallery(emulator)
    with sync.Client(emulator.token, base_url=emulator.url) as client:
        client.run("acme/looker", {"image": Image.new("RGB", (5, 3))})
        client.run("acme/looker", {"image": np.zeros((3, 5, 3), np.uint8)})
        [file] = client.run("emulator/painter", {"prompt": "x", "width": 64, "height": 96})
        assert file.pil().size == (64, 96)
        assert Image.open(file).size == (64, 96)
    assert [Image.open(io.BytesIO(content)).size for content in gallery.seen] == [(5, 3), (5, 3)]
