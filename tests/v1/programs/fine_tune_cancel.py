"""Trainings by position and by name, and how they are cancelled."""

import replicate

replicate.models.create("acme", "other", visibility="private", hardware="cpu")
base = replicate.models.get("emulator/trainee")
reference = f"emulator/trainee:{base.latest_version.id}"
inputs = {"input_images": "https://example.com/a.zip", "steps": 1000}
one = replicate.trainings.create(reference, inputs, "acme/other")
two = replicate.trainings.create(
    model=base, version=base.latest_version, input=inputs, destination=("acme", "other")
)
one.cancel()
print(one.status, two.status in ("starting", "processing"))
print(replicate.trainings.cancel(two.id).status)
print(replicate.trainings.get(two.id).completed_at is not None)
for wrong in ({"version": "x"}, {"version": reference}):
    try:
        replicate.trainings.create(input={}, **wrong)
    except ValueError:
        print("ValueError", sorted(wrong))
