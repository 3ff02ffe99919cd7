"""A Ray Data job that paints many pictures on several machines, and pays for each once.

python docs/examples/ray_job.py prompts.txt /shared/pictures
"""

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import ray
from ray.data import ActorPoolStrategy

import replicate_async as replicate

MODEL = os.environ.get("MODEL", "emulator/painter")
WORKERS = 2
BATCH = 16


class Painter:
    """Paints batches in an actor, which is a process of its own with one client."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)
        # The limits of the account are shared by all workers.
        limit = replicate.RateLimit(creates=600 // WORKERS, others=3000 // WORKERS)
        self._client = replicate.Client(rate_limit=limit)

    async def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Paint a batch.

        Ray repeats a batch whose worker has died, on any machine. The journal is named after the batch, so that
        the next worker continues where the dead one was.
        """
        prompts = [str(prompt) for prompt in batch["text"]]
        name = hashlib.sha256("\n".join(prompts).encode()).hexdigest()[:16]
        inputs = [{"prompt": prompt} for prompt in prompts]
        directory = self._directory / name
        outcomes = await self._client.map(
            MODEL, inputs, timeout=300, save_to=directory, journal=directory.with_suffix(".journal")
        ).collect()
        return {
            "prompt": prompts,
            "picture": [str(outcome.saved[0]) if outcome.saved else "" for outcome in outcomes],
            "error": [str(outcome.error or "") for outcome in outcomes],
        }


def main(prompts: str, directory: str) -> None:
    """Paint a picture for each line of a file."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    painted = ray.data.read_text(prompts).map_batches(
        Painter,
        fn_constructor_args=(directory,),
        batch_size=BATCH,
        compute=ActorPoolStrategy(size=WORKERS),
        num_cpus=0.1,  # an actor waits most of the time
    )
    rows = painted.take_all()
    print(f"{len(rows)} pictures, {sum(bool(row['error']) for row in rows)} failed")


if __name__ == "__main__":
    main(*sys.argv[1:])
