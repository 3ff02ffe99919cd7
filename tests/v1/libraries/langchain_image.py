"""LangChain's model of Replicate with a model of images."""

from langchain_community.llms import Replicate

import replicate

llm = Replicate(model="emulator/painter", model_kwargs={"width": 64, "height": 64, "seed": 3})
url = llm.invoke("a boat")
print(url.split(":")[0], url.rsplit("/", 1)[1])
print(len(replicate.helpers.FileOutput(url, replicate.default_client).read()))
