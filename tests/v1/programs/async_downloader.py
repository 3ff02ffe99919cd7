"""Several images at a time, with asyncio."""

import asyncio

import replicate


async def main() -> None:
    prompts = ["red", "green", "blue"]
    runs = [
        replicate.async_run("emulator/painter", input={"prompt": prompt, "seed": 5})
        for prompt in prompts
    ]
    for prompt, [image] in zip(prompts, await asyncio.gather(*runs)):
        whole = await image.aread()
        size = 0
        async for chunk in image:
            size += len(chunk)
        print(prompt, whole[:4], size == len(whole), size)


asyncio.run(main())
