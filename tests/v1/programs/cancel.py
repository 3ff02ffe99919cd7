"""Predictions that are cancelled."""

import replicate

version = replicate.models.get("emulator/sleeper").latest_version
prediction = replicate.predictions.create(version=version, input={"seconds": 60})
print(prediction.cancel(), prediction.status)
prediction.reload()
print(prediction.status, prediction.output, prediction.error, prediction.completed_at is not None)
print(prediction.wait(), list(prediction.output_iterator()))
second = replicate.predictions.create(version=version, input={"seconds": 60})
print(replicate.predictions.cancel(second.id).status)
print(replicate.predictions.get(second.id).status)
print(sorted(each.status for each in replicate.predictions.list()))
