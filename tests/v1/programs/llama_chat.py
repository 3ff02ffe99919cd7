"""A chat with a version of a language model, whose output is an iterator."""

import types

import replicate

latest = replicate.models.get("emulator/writer").latest_version.id
output = replicate.run(
    "emulator/writer:" + latest, input={"prompt": "Assistant: ", "max_tokens": 10}
)
print(isinstance(output, types.GeneratorType))
full = ""
for item in output:
    full += item
print(full)
print(list(output))
print("".join(replicate.run(f"emulator/writer:{latest}", {"prompt": "x", "max_tokens": 5})))
words = replicate.run(f"emulator/writer:{latest}", {"prompt": "y", "max_tokens": 5}, wait=False)
print("".join(words))
print("".join(replicate.run("emulator/writer", input={"prompt": "z", "max_tokens": 5})))
