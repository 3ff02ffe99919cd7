"""A chat in the manner of Streamlit: the text so far is shown again with each piece."""

import replicate

messages = [{"role": "user", "content": "Tell me about the sea"}]


def show(text: str) -> None:
    print(f"[{text}|]")


def respond() -> str:
    dialogue = "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)
    full = ""
    for event in replicate.stream(
        "emulator/writer", input={"prompt": f"{dialogue}\n\nassistant:", "max_tokens": 12}
    ):
        full += str(event)
        show(full)
    return full


messages.append({"role": "assistant", "content": respond()})
messages.append({"role": "user", "content": "And the hills?"})
messages.append({"role": "assistant", "content": respond()})
print(messages)
