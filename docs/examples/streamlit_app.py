"""A Streamlit page with a text that appears as it is written, and a picture.

streamlit run docs/examples/streamlit_app.py
"""

import os
from collections.abc import Iterator

import streamlit as st

from replicate_async import exceptions
from replicate_async import sync as replicate

WRITER = os.environ.get("WRITER", "emulator/writer")
PAINTER = os.environ.get("PAINTER", "emulator/painter")


@st.cache_resource
def client() -> replicate.Client:
    """Return one client for all sessions of the app."""
    return replicate.Client()


def write(prompt: str) -> Iterator[str]:
    """Yield pieces of a text. When the visitor does something else, Streamlit ends the script, which cancels the prediction."""
    with client().stream(WRITER, {"prompt": prompt}, timeout=120) as events:
        for event in events:
            yield str(event)


prompt = st.text_input("Prompt", "a harbour in the morning")
if st.button("Write"):
    st.write_stream(write(prompt))
if st.button("Paint"):
    try:
        [image] = client().run(PAINTER, {"prompt": prompt}, timeout=120)
        st.image(image.read())
    except exceptions.ReplicateException as error:
        st.error(str(error))
