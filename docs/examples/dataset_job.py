"""Add a column to a Hugging Face dataset: the model runs on the rows concurrently.

python docs/examples/dataset_job.py prompts.jsonl painted/
"""

import os
import sys
from typing import Any

from datasets import Dataset

from replicate_async import sync as replicate

MODEL = os.environ.get("MODEL", "emulator/painter")


def main(source: str, target: str) -> None:
    """Paint a picture for each row, and save the dataset with the pictures in it."""
    dataset = Dataset.from_json(source)
    inputs = ({"prompt": row["prompt"]} for row in dataset)
    outcomes = replicate.map(
        MODEL, inputs, timeout=300, save_to=f"{target}.files", journal=f"{target}.journal"
    ).collect()
    rows: list[dict[str, Any]] = [
        {**row, "image": str(outcome.saved[0]) if outcome.saved else None}
        for row, outcome in zip(dataset, outcomes, strict=True)
    ]
    painted = Dataset.from_list(rows)
    painted.save_to_disk(target)
    print(painted)


if __name__ == "__main__":
    main(*sys.argv[1:])
