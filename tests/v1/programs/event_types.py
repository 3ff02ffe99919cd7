"""Streams whose events are told apart by their types."""

import replicate
from replicate.stream import ServerSentEvent

prediction = replicate.predictions.create(
    model="emulator/writer", input={"prompt": "wind", "max_tokens": 5}, stream=True
)
print("stream" in prediction.urls)
text = ""
for event in prediction.stream():
    if event.event == ServerSentEvent.EventType.OUTPUT:
        text += event.data
    elif event.event == ServerSentEvent.EventType.DONE:
        print("done", str(event) == "")
    else:
        print("other", event.event)
print(text)
print(ServerSentEvent.EventType("logs"), [each.value for each in ServerSentEvent.EventType])
event = ServerSentEvent(event="output", data="x", id="1")
print(event.event, event, event.retry, event.dict())
