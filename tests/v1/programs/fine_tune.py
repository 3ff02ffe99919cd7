"""A fine-tune from its model to the first image."""

import io
import time

import replicate

owner = replicate.default_client.accounts.current().username
model = replicate.models.create(
    owner=owner, name="my-tune", visibility="private", hardware="cpu", description="Mine"
)
print(model.id, model.visibility, model.description, model.latest_version)
base = replicate.models.get("emulator/trainee")
training = replicate.trainings.create(
    version=f"emulator/trainee:{base.latest_version.id}",
    input={"input_images": io.BytesIO(b"PK of images"), "steps": 3, "trigger_word": "TOK"},
    destination=model.id,
)
print(training.status, training.model, training.version == base.latest_version.id)
while training.status not in ("succeeded", "failed", "canceled"):
    time.sleep(0.05)
    training.reload()
print(training.status, training.error, training.destination, sorted(training.output))
print(training.output["version"].split(":")[0], type(training.created_at).__name__)
model.reload()
print([t.status for t in replicate.trainings.list()], len(model.versions.list()))
