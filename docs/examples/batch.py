"""A batch that survives: it describes the pictures in a directory, and writes a CSV file.

    python docs/examples/batch.py pictures/ descriptions.csv

If it is interrupted, run it again: the journal beside the CSV file knows what has been paid for.
"""

import argparse
import asyncio
import csv
import os
import sys
from pathlib import Path

import replicate_async as replicate

MODEL = os.environ.get("MODEL", "emulator/describer")
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}


async def describe(pictures: list[Path], journal: Path) -> list[replicate.Outcome]:
    """Describe pictures, and return the outcomes in their order."""
    inputs = ({"image": path} for path in pictures)
    async with replicate.Client() as client:
        outcomes = client.map(MODEL, inputs, journal=journal, timeout=300, retry_failed=2)
        return await outcomes.collect()


def main() -> int:
    """Run the batch; the exit code is 1 if a picture has no description."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("output", type=Path)
    options = parser.parse_args()
    pictures = sorted(path for path in options.directory.iterdir() if path.suffix in SUFFIXES)
    outcomes = asyncio.run(describe(pictures, options.output.with_suffix(".journal")))
    with options.output.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["picture", "description", "error"])
        for path, outcome in zip(pictures, outcomes, strict=True):
            writer.writerow([path.name, outcome.output, outcome.error])
    failed = sum(outcome.error is not None for outcome in outcomes)
    print(f"{len(outcomes)} pictures, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
