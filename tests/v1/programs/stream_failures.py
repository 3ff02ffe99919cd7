"""Streams that end with a failure."""

import replicate

try:
    for event in replicate.stream("acme/breaks", input={"error": "no more"}):
        print(event.event.value, repr(str(event)))
except RuntimeError as error:
    print("RuntimeError", "no more" in str(error))
except replicate.exceptions.ReplicateError as error:
    print("ReplicateError", error)
pieces = []
for event in replicate.stream("emulator/writer", input={"prompt": "long", "max_tokens": 30}):
    pieces.append(str(event))
    if len(pieces) == 5:
        break
print(pieces)
