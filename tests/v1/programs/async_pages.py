"""Lists in an event loop."""

import asyncio

import replicate


async def main() -> None:
    ids = []
    async for page in replicate.async_paginate(replicate.models.async_list):
        ids += [model.id for model in page.results]
    print(ids)
    print([each.slug for each in await replicate.collections.async_list()])
    print([model.name for model in await replicate.collections.async_get("text-to-image")])
    print([each.sku for each in await replicate.hardware.async_list()][:2])
    print((await replicate.default_client.accounts.async_current()).username)
    print([model.id for model in await replicate.models.async_search("painter")])
    model = await replicate.models.async_get("emulator/writer")
    print(len(await model.versions.async_list()))
    print((await replicate.predictions.async_list()).results)


asyncio.run(main())
