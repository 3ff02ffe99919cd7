"""LangChain's model of Replicate: calls, streams, stop words, chains, batches, failures."""

import asyncio

from langchain_community.llms import Replicate
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate

import replicate

version = replicate.models.get("emulator/writer").latest_version.id
for name in ("emulator/writer", f"emulator/writer:{version}"):
    llm = Replicate(model=name, model_kwargs={"max_tokens": 6})
    print(llm.invoke("the sea"))
    print(list(llm.stream("the hills")))
    print(llm.invoke("the rain", stop=[" "]))
    print(llm.batch(["one", "two"]))
    print(asyncio.run(llm.ainvoke("later")))
streaming = Replicate(model="emulator/writer", streaming=True, model_kwargs={"max_tokens": 6})
print(streaming.invoke("wind"))
chain = PromptTemplate.from_template("Say {what}") | streaming | StrOutputParser()
print(chain.invoke({"what": "something"}))
stopped = Replicate(model="emulator/writer", stop=["."], model_kwargs={"max_tokens": 300})
print("".join(stopped.stream("a long one")))
print(sorted(each.status for each in replicate.predictions.list())[-1])
failing = Replicate(model="acme/breaks", prompt_key="error")
try:
    failing.invoke("too bad")
except RuntimeError as error:
    print("RuntimeError", error)
