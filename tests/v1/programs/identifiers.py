"""References to models, and the schemas of old versions."""

from replicate.identifier import ModelVersionIdentifier
from replicate.schema import make_schema_backwards_compatible, version_has_no_array_type

for reference in ("a/b", "a/b:c", "a/b:c:d", "a-1/b_2.3:v"):
    found = ModelVersionIdentifier.parse(reference)
    print(found, found.owner, found.name, found.version, tuple(found))
for wrong in ("a", "a/b/c", "/b", "a/", "", "a/b:"):
    try:
        print(ModelVersionIdentifier.parse(wrong))
    except ValueError:
        print("ValueError", repr(wrong))
print(ModelVersionIdentifier("a", "b"), ModelVersionIdentifier(owner="a", name="b", version="c"))
for release in (
    "0.3.8",
    "0.3.9",
    "0.10.1",
    "0.3.9b1",
    "0.3.9.dev3",
    "v0.2",
    "1",
    "0.3.9+x",
    "dev",
    "",
):
    print(release, version_has_no_array_type(release))
schema = {"components": {"schemas": {"Output": {"type": "array"}}}}
print(make_schema_backwards_compatible(schema, "0.3.0"))
