"""A Dask job that paints many pictures on several machines, and pays for each once.

python docs/examples/dask_job.py prompts.txt /shared/pictures
"""

import hashlib
import os
import sys
from pathlib import Path

from dask.distributed import Client as Cluster
from dask.distributed import LocalCluster, as_completed

from replicate_async import RateLimit
from replicate_async import sync as replicate

MODEL = os.environ.get("MODEL", "emulator/painter")
WORKERS = 2
BATCH = 16


def paint(prompts: list[str], directory: str) -> list[tuple[str, str]]:
    """Paint a batch in a worker; return a path and an error for each prompt.

    Dask repeats a task whose worker has died. The journal is named after the batch, so that the next worker continues
    where the dead one was.
    """
    name = hashlib.sha256("\n".join(prompts).encode()).hexdigest()[:16]
    place = Path(directory, name)
    inputs = [{"prompt": prompt} for prompt in prompts]
    # The limits of the account are shared by all workers.
    limit = RateLimit(creates=600 // WORKERS, others=3000 // WORKERS)
    with replicate.Client(rate_limit=limit) as client:
        outcomes = client.map(
            MODEL, inputs, timeout=300, save_to=place, journal=place.with_suffix(".journal")
        ).collect()
    return [
        (str(outcome.saved[0]) if outcome.saved else "", str(outcome.error or ""))
        for outcome in outcomes
    ]


def main(prompts: str, directory: str) -> None:
    """Paint a picture for each line of a file."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    lines = Path(prompts).read_text("utf-8").splitlines()
    batches = [lines[start : start + BATCH] for start in range(0, len(lines), BATCH)]
    # In production: Cluster("tcp://scheduler:8786")
    with LocalCluster(n_workers=WORKERS, threads_per_worker=1) as local, Cluster(local) as cluster:
        rows: list[tuple[str, str]] = []
        for future in as_completed(cluster.map(paint, batches, directory=directory)):
            rows += future.result()
    print(f"{len(rows)} pictures, {sum(bool(error) for _, error in rows)} failed")


if __name__ == "__main__":
    main(*sys.argv[1:])
