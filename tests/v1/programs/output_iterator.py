"""The output of a prediction as it appears."""

import replicate

prediction = replicate.predictions.create(
    model="emulator/writer", input={"prompt": "slowly", "max_tokens": 8}
)
pieces = []
for piece in prediction.output_iterator():
    pieces.append(piece)
print("".join(pieces), len(pieces), prediction.status)
prediction = replicate.predictions.create(
    version=replicate.models.get("emulator/painter").latest_version.id,
    input={"prompt": "two", "num_outputs": 2, "seed": 1},
)
for url in prediction.output_iterator():
    print(type(url).__name__, url.split(":")[0])
print(prediction.status, len(prediction.output), type(prediction.output[0]).__name__)
failing = replicate.predictions.create(
    version=replicate.models.get("emulator/failer").latest_version.id, input={"error": "no"}
)
try:
    print(list(failing.output_iterator()))
except replicate.exceptions.ModelError as error:
    print(error, error.prediction is failing, failing.status)
