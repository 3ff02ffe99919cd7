"""The first example of every tutorial."""

import replicate

model = replicate.models.get("replicate/hello-world")
version = model.latest_version
print(replicate.run(f"replicate/hello-world:{version.id}", input={"text": "Alice"}))
print(replicate.run(f"{model.owner}/{model.name}:{version.id}", {"text": "Bob"}, wait=False))
