"""Streams in an event loop, in both ways."""

import asyncio

import replicate


async def main() -> None:
    stream = await replicate.async_stream(
        "emulator/writer", input={"prompt": "rain", "max_tokens": 6}
    )
    async for event in stream:
        print(event.event.value, repr(str(event)))
    prediction = await replicate.models.predictions.async_create(
        "emulator/writer", input={"prompt": "snow", "max_tokens": 4}
    )
    async for event in prediction.async_stream():
        print(event.event.name, repr(event.data) if event.event.name == "OUTPUT" else "")
    version = (await replicate.models.async_get("emulator/writer")).latest_version
    pieces = await replicate.async_run(
        f"emulator/writer:{version.id}", input={"prompt": "ice", "max_tokens": 5}
    )
    print([piece async for piece in pieces])


asyncio.run(main())
