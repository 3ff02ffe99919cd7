"""What can go wrong, and how scripts tell the user."""

import replicate
from replicate.exceptions import ModelError, ReplicateError, ReplicateException

for call in (
    lambda: replicate.predictions.get("nothing"),
    lambda: replicate.models.get("acme/nothing"),
    lambda: replicate.models.get("emulator/writer").versions.get("0" * 64),
    lambda: replicate.collections.get("nothing"),
    lambda: replicate.deployments.get("acme/nothing"),
    lambda: replicate.predictions.create(model="emulator/writer", input={"prompt": 1}),
    lambda: replicate.run("emulator/writer", input={}),
):
    try:
        call()
    except ReplicateError as error:
        print(error)
        print(error.status, error.title, error.to_dict())
        print(isinstance(error, ReplicateException))
version = replicate.models.get("emulator/failer").latest_version.id
for wait in (True, False):
    try:
        replicate.run(f"emulator/failer:{version}", input={"error": "(E1001)"}, wait=wait)
    except ModelError as error:
        print(error, error.prediction.status, error.prediction.error, error.prediction.output)
for wrong in (
    lambda: replicate.run("nonsense", input={}),
    lambda: replicate.predictions.create(input={}),
    lambda: replicate.predictions.create(version="v", model="a/b", input={}),
    lambda: replicate.models.list(None),
    lambda: replicate.models.get("a", "b", "c"),
):
    try:
        wrong()
    except ValueError as error:
        print("ValueError", bool(str(error)))
print(repr(ReplicateError(type="t", title="T", status=418, detail="d", instance="i")))
