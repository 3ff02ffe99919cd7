"""A Gradio page with a text that appears as it is written, and a picture.

python docs/examples/gradio_app.py
"""

import os
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

import replicate_async as replicate
from replicate_async import exceptions

WRITER = os.environ.get("WRITER", "emulator/writer")
PAINTER = os.environ.get("PAINTER", "emulator/painter")


async def write(prompt: str) -> AsyncIterator[str]:
    """Yield the text so far. If the visitor cancels, Gradio closes the generator, which cancels the prediction."""
    text = ""
    async with replicate.stream(WRITER, {"prompt": prompt}, timeout=120) as events:
        async for event in events:
            text += str(event)
            yield text


async def paint(prompt: str) -> Any:
    """Return a picture."""
    try:
        [image] = await replicate.run(PAINTER, {"prompt": prompt}, timeout=120)
    except exceptions.ReplicateException as error:
        raise gr.Error(str(error)) from error
    return await image.pil()


demo = gr.TabbedInterface(
    [
        gr.Interface(write, "text", "text", api_name="write"),
        gr.Interface(paint, "text", "image", api_name="paint"),
    ],
    ["Write", "Paint"],
)

if __name__ == "__main__":
    demo.launch()
