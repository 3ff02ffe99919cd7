"""The progress of a prediction, from its logs."""

import time

import replicate
from replicate.prediction import Prediction

prediction = replicate.predictions.create(
    version=replicate.models.get("emulator/sleeper").latest_version.id, input={"seconds": 0.5}
)
print(prediction.progress)
last = 0.0
while prediction.status not in ("succeeded", "failed", "canceled"):
    time.sleep(0.05)
    prediction.reload()
    if progress := prediction.progress:
        assert progress.percentage >= last
        last = progress.percentage
print(prediction.progress, prediction.progress.current == prediction.progress.total)
print(prediction.metrics["predict_time"] > 0, bool(prediction.logs))
print(Prediction.Progress.parse(" 45%|####      | 9/20 [00:01<00:01]"))
print(Prediction.Progress.parse("nothing"), Prediction.Progress(0.5, 1, 2))
