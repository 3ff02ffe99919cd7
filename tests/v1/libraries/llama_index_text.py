"""LlamaIndex's model of Replicate: completions and chats, streamed and not."""

from llama_index.core.llms import ChatMessage
from llama_index.llms.replicate import Replicate

llm = Replicate(model="acme/chat", additional_kwargs={"system": "be brief"})
print(llm.complete("hello"))
for part in llm.stream_complete("stream this"):
    print(repr(part.delta), repr(part.text))
print(llm.chat([ChatMessage(role="user", content="hi"), ChatMessage(role="user", content="you")]))
print([part.delta for part in llm.stream_chat([ChatMessage(role="user", content="bye")])])
