"""Predictions in the background, with asyncio."""

import asyncio

import replicate


async def main() -> None:
    version = (await replicate.models.async_get("emulator/writer")).latest_version
    prediction = await replicate.predictions.async_create(
        version=version.id, input={"prompt": "a", "max_tokens": 4}
    )
    print(prediction.status)
    await prediction.async_wait()
    print(prediction.status, "".join(prediction.output))
    again = await replicate.predictions.async_get(prediction.id)
    print(again.id == prediction.id, again.status)

    second = await replicate.predictions.async_create(version, {"prompt": "b", "max_tokens": 6})
    print([piece async for piece in second.async_output_iterator()])
    print(second.status)

    sleeper = await replicate.models.async_get("emulator/sleeper")
    third = await replicate.predictions.async_create(
        version=sleeper.latest_version, input={"seconds": 60}
    )
    await third.async_cancel()
    await third.async_reload()
    print(third.status, third.output)


asyncio.run(main())
