"""Images in chunks, and what a file output is."""

import hashlib

import replicate
from replicate.helpers import FileOutput

[image] = replicate.run("emulator/painter", input={"prompt": "a lake", "seed": 1})
print(isinstance(image, FileOutput), type(image).__name__)
print(image.url.startswith("https://"), str(image) == image.url, f"{image}" == image.url)
whole = image.read()
chunks = hashlib.sha256()
for chunk in image:
    assert isinstance(chunk, bytes)
    chunks.update(chunk)
print(chunks.hexdigest() == hashlib.sha256(whole).hexdigest(), whole[:8])
again = FileOutput(image.url, replicate.default_client)
print(again.read() == whole)
print(FileOutput("data:text/plain;base64,aGVsbG8=", replicate.default_client).read())
print(list(FileOutput("data:text/plain;base64,aGVsbG8=", replicate.default_client)))
