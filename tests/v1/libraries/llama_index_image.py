"""LlamaIndex's multi-modal model of Replicate: an image as a file."""

import tempfile
from pathlib import Path

from llama_index.core.llms import ImageBlock
from llama_index.multi_modal_llms.replicate import ReplicateMultiModal
from llama_index.multi_modal_llms.replicate.base import REPLICATE_MULTI_MODAL_LLM_MODELS
from PIL import Image

import replicate

version = replicate.models.get("acme/seer").latest_version.id
REPLICATE_MULTI_MODAL_LLM_MODELS["seer"] = f"acme/seer:{version}"
llm = ReplicateMultiModal(model=REPLICATE_MULTI_MODAL_LLM_MODELS["seer"], max_new_tokens=5)
with tempfile.TemporaryDirectory() as place:
    path = Path(place) / "red.png"
    Image.new("RGB", (40, 30), "red").save(path)
    document = ImageBlock(path=path)
    print(llm.complete("what is it?", image_documents=[document]))
    print([part.delta for part in llm.stream_complete("and?", image_documents=[document])])
