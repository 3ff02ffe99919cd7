"""A deployment, from its creation to its end."""

import replicate

version = replicate.models.get("replicate/hello-world").latest_version
deployment = replicate.deployments.create(
    name="hello",
    model="replicate/hello-world",
    version=version.id,
    hardware="cpu",
    min_instances=0,
    max_instances=1,
)
print(deployment.id, deployment.owner, deployment.name)
release = deployment.current_release
print(
    release.number, release.model, release.version == version.id, type(release.created_at).__name__
)
print(
    release.configuration.hardware, release.configuration.max_instances, release.created_by.username
)
prediction = deployment.predictions.create(input={"text": "deployed"})
prediction.wait()
print(prediction.output)
second = replicate.deployments.predictions.create("acme/hello", input={"text": "by name"})
second.wait()
print(second.output, second.model)
third = replicate.predictions.create(deployment=deployment, input={"text": "third"})
third.wait()
print(third.output)
changed = replicate.deployments.update("acme", "hello", max_instances=3)
print(changed.current_release.number, changed.current_release.configuration.max_instances)
print([each.id for each in replicate.deployments.list()])
print(replicate.deployments.get("acme/hello") == changed)
