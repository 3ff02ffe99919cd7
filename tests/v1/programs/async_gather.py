"""A fan-out with a task group, as the reference documentation shows it."""

import asyncio

import replicate


async def main() -> None:
    model = await replicate.models.async_get("replicate/hello-world")
    version = f"replicate/hello-world:{model.latest_version.id}"
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(replicate.async_run(version, input={"text": f"number {count}"}))
            for count in range(8)
        ]
    print(await asyncio.gather(*tasks))


asyncio.run(main())
