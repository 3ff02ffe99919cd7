"""The functions that tools built on the client use."""

import io
import tempfile
from pathlib import Path

import replicate
from replicate.helpers import base64_encode_file, encode_json, transform_output

client = replicate.default_client
with tempfile.TemporaryDirectory() as place:
    path = Path(place) / "a.txt"
    path.write_text("text")
    with open(path, "rb") as file:
        print(base64_encode_file(file))
    encoded = encode_json({"f": path, "n": [1, (2, 3)], "s": "x"}, client, "base64")
    print(encoded)
    uploaded = encode_json({"f": path}, client)
    print(type(uploaded["f"]).__name__, uploaded["f"].startswith("https://"))
print(base64_encode_file(io.BytesIO(b"12")))
output = transform_output({"a": ["https://x/y.png", "text", 3], "b": "data:,x"}, client)
print([type(item).__name__ for item in output["a"]], type(output["b"]).__name__)
print(output["a"][0].url, str(output["b"]))
