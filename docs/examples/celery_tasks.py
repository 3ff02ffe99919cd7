"""A Celery task that paints a picture, and pays for it once.

celery --workdir docs/examples --app celery_tasks worker --pool threads --concurrency 64
"""

import os
from pathlib import Path
from typing import Any

from celery import Celery, Task

from replicate_async import RateLimit
from replicate_async import sync as replicate

MODEL = os.environ.get("MODEL", "emulator/painter")
WORKERS = 2
DIRECTORY = Path(os.environ.get("DIRECTORY", "pictures"))
"""A directory that all workers share."""
REDIS = os.environ.get("REDIS", "redis://localhost")

app = Celery("celery_tasks", broker=REDIS, backend=REDIS)
# A task whose worker has died is delivered again. With Redis, that is after the visibility timeout, which must be longer
# than a task takes.
app.conf.task_acks_late = True
app.conf.broker_transport_options = {"visibility_timeout": int(os.environ.get("VISIBILITY", "900"))}

# The limits of the account are shared by all workers.
client = replicate.Client(rate_limit=RateLimit(creates=600 // WORKERS, others=3000 // WORKERS))


@app.task(bind=True)
def paint(task: "Task[Any, Any]", prompt: str) -> str:
    """Paint a picture, and return its path.

    The journal is named after the task. If the task is delivered again, it continues where the dead worker was.
    """
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    place = DIRECTORY / str(task.request.id)
    [outcome] = client.map(
        MODEL,
        [{"prompt": prompt}],
        timeout=300,
        save_to=place,
        journal=place.with_suffix(".journal"),
    )
    outcome.result()  # raises what went wrong
    return str(outcome.saved[0])
