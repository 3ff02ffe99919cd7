"""Uploads."""

import io
import tempfile
from pathlib import Path

import replicate

with tempfile.TemporaryDirectory() as place:
    path = Path(place) / "notes.txt"
    path.write_text("some notes")
    one = replicate.files.create(path, metadata={"mine": True})
    print(one.name, one.content_type, one.size, one.metadata, sorted(one.urls))
    two = replicate.files.create(str(path))
    with open(path, "rb") as file:
        three = replicate.files.create(file, filename="renamed.txt", content_type="text/plain")
    print(two.name, three.name, three.content_type, type(three.created_at).__name__)
four = replicate.files.create(io.BytesIO(b"bytes"), filename="b.bin")
print(four.name, four.size, four.content_type)
print(len(replicate.files.list()), type(replicate.files.list()).__name__)
print(replicate.files.get(one.id) == one, sorted(one.checksums))
for file in (one, two, three, four):
    print(replicate.files.delete(file.id))
print(replicate.files.list())
try:
    replicate.files.create(3)
except ValueError:
    print("ValueError")
