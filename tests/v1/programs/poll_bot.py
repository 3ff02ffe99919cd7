"""A chat bot that creates a prediction, and looks after it until it has ended."""

import time

import replicate

STATES = {"starting": 0, "processing": 1, "succeeded": 2, "failed": 2, "canceled": 2}


def answer(text: str) -> str:
    prediction = replicate.predictions.create(
        version=replicate.models.get("emulator/sleeper").latest_version,
        input={"seconds": 0.4},
    )
    seen = [prediction.status]
    while prediction.status not in ("succeeded", "failed", "canceled"):
        time.sleep(0.05)
        prediction.reload()
        seen.append(prediction.status)
    order = [STATES[state] for state in seen]
    assert order == sorted(order)
    return f"{text}: {prediction.status}, {prediction.output}, {seen[0]}"


print(answer("one"))
print(answer("two"))
