"""Images, written to files."""

import hashlib
import tempfile
from pathlib import Path

import replicate

output = replicate.run(
    "emulator/painter", input={"prompt": "an astronaut", "num_outputs": 3, "seed": 7}
)
print(type(output).__name__, len(output))
with tempfile.TemporaryDirectory() as place:
    for index, item in enumerate(output):
        path = Path(place) / f"output_{index}.png"
        with open(path, "wb") as file:
            file.write(item.read())
        content = path.read_bytes()
        print(path.name, len(content), hashlib.sha256(content).hexdigest()[:12])
    for path in sorted(Path(place).iterdir()):
        print(path.name)
