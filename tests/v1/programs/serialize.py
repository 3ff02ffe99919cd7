"""Predictions in caches, databases and JSON."""

import copy
import json
import pickle

import replicate
from replicate.prediction import Prediction

version = replicate.models.get("replicate/hello-world").latest_version
prediction = replicate.predictions.create(version=version.id, input={"text": "kept"})
prediction.wait()
data = prediction.dict()
print(list(data))
print(data["status"], data["output"], data["input"], type(data["created_at"]).__name__)
text = prediction.json()
print(json.loads(text) == data)
print(sorted(dict(prediction)) == sorted(data))
print(prediction.dict(include={"status", "output"}), prediction.json(include={"output"}))
print(prediction.dict(exclude_none=True).get("error", "left out"))
again = Prediction(**data)
print(again == prediction, again.dict() == data, again is prediction)
print(Prediction.parse_raw(text) == prediction, Prediction.parse_obj(data) == prediction)
changed = prediction.copy(update={"status": "failed"})
print(changed.status, prediction.status, changed == prediction)
print(copy.copy(again) == again, copy.deepcopy(again) == again)
print(pickle.loads(pickle.dumps(again)) == again)
print(str(again).startswith("id='"), repr(again).startswith("Prediction(id='"))
again.status = "canceled"
print(again.status)
small = Prediction(id="1", model="a/b", version="v", status="starting")
print(small)
print(repr(small))
print(small.json())
