"""A stream whose prediction is cancelled meanwhile."""

import json

import replicate

prediction = replicate.predictions.create(
    model="emulator/writer", input={"prompt": "endless", "max_tokens": 500}
)
count = 0
for event in prediction.stream():
    count += 1
    if count == 3:
        prediction.cancel()
    last = event
print(count >= 3, last.event, json.loads(last.data) if last.data else None)
prediction.reload()
print(prediction.status)
