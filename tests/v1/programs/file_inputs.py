"""Files as inputs: handles, paths, URLs and data URIs."""

import base64
import io
import tempfile
from pathlib import Path

from PIL import Image

import replicate

describer = "emulator/describer:" + replicate.models.get("emulator/describer").latest_version.id
with tempfile.TemporaryDirectory() as place:
    path = Path(place) / "mystery.png"
    Image.new("RGB", (96, 64), "red").save(path)
    with open(path, "rb") as file:
        print(replicate.run(describer, input={"image": file}))
    print(replicate.run(describer, input={"image": path}))
    print(replicate.run(describer, input={"image": io.BytesIO(path.read_bytes())}))
    uri = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    print(replicate.run(describer, input={"image": uri}))
    uploaded = replicate.files.create(path)
    print(replicate.run(describer, input={"image": uploaded.urls["get"]}))
    with open(path, "rb") as file:
        print(replicate.run(describer, input={"image": file}, file_encoding_strategy="base64"))
[image] = replicate.run("emulator/painter", {"prompt": "x", "width": 64, "height": 64})
print(replicate.run(describer, input={"image": image.url}))
