"""A fan-out with threads."""

from concurrent.futures import ThreadPoolExecutor

import replicate

version = replicate.models.get("replicate/hello-world").latest_version.id


def one(text: str) -> str:
    return replicate.run(f"replicate/hello-world:{version}", input={"text": text})


with ThreadPoolExecutor(max_workers=6) as pool:
    print(list(pool.map(one, [f"thread {number}" for number in range(12)])))
