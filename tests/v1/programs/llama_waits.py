"""Iterators with the ways to wait."""

import replicate

latest = replicate.models.get("emulator/writer").latest_version.id
failing = replicate.models.get("acme/breaks").latest_version.id
for wait in (True, False, 1, 5, 60):
    output = replicate.run(
        f"emulator/writer:{latest}", input={"prompt": str(wait), "max_tokens": 6}, wait=wait
    )
    print(wait, type(output).__name__, list(output))
for wait in (True, 30):
    try:
        print(list(replicate.run(f"acme/breaks:{failing}", input={"error": "x"}, wait=wait)))
    except replicate.exceptions.ModelError as error:
        print(wait, error, error.prediction.output)
try:
    for piece in replicate.run(f"acme/breaks:{failing}", input={"error": "x"}, wait=False):
        pass
except replicate.exceptions.ModelError as error:
    print(error, error.prediction.status)
