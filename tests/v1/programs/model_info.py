"""What a model is, and what it takes."""

import replicate

model = replicate.models.get("emulator/painter")
print(model.id, model.owner, model.name, model.visibility, model.description)
print(model.url, model.run_count, model.github_url, model.cover_image_url)
version = model.latest_version
schemas = version.openapi_schema["components"]["schemas"]
for name, facts in sorted(
    schemas["Input"]["properties"].items(), key=lambda item: item[1].get("x-order", 0)
):
    print(name, facts.get("type"), facts.get("default"))
print(schemas["Output"].get("type"), version.cog_version)
print(type(version.created_at).__name__, version.created_at.tzinfo is not None)
print([v.id == version.id for v in model.versions.list()])
print(model.versions.get(version.id) == version)
print(
    replicate.models.get("emulator", "painter").name,
    replicate.models.get(key="emulator/painter").name,
)
print(replicate.models.get(owner="emulator", name="painter").name)
example = model.default_example
print(type(example).__name__, example.status if example else None)
