"""References: valid ones round-trip, and anything else is refused."""

# ruff: noqa: PT017  (whether it raises depends on what is drawn)

from __future__ import annotations

import string
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replicate_async._references import identifier, parse_name, parse_reference
from replicate_async.exceptions import ArgumentTypeError, InvalidReference

SEGMENTS = st.text(
    st.sampled_from(string.ascii_letters + string.digits + "-_.~!$&'()*+,;=@é中"), min_size=1
).filter(lambda text: text not in {".", ".."})
VERSIONS = st.text("0123456789abcdefABCDEF", min_size=64, max_size=64)


@given(SEGMENTS, SEGMENTS)
def test_names_round_trip(owner: str, name: str) -> None:
    """`owner/name` is parsed, and formatted as it was."""
    reference = parse_reference(f"{owner}/{name}")
    assert (reference.owner, reference.name, reference.version) == (owner, name, None)
    assert str(reference) == reference.full_name == f"{owner}/{name}"
    assert parse_name(f"{owner}/{name}", None, "model") == (owner, name)
    assert parse_name(owner, name, "model") == (owner, name)


@given(SEGMENTS, SEGMENTS, st.one_of(VERSIONS, SEGMENTS))
def test_names_with_versions_round_trip(owner: str, name: str, version: str) -> None:
    """`owner/name:version` is parsed, and formatted as it was, with any version."""
    reference = parse_reference(f"{owner}/{name}:{version}")
    assert (reference.owner, reference.name, reference.version) == (owner, name, version)
    assert str(reference) == f"{owner}/{name}:{version}"


@given(VERSIONS)
def test_bare_versions_round_trip(version: str) -> None:
    """64 hex digits are a version without a model."""
    reference = parse_reference(version)
    assert (reference.full_name, reference.version, str(reference)) == (None, version, version)


@given(st.text(st.one_of(st.characters(), st.sampled_from("/:. ab%?#\\\n"))))
@example("owner")
@example("owner/name/")
@example("owner/name:")
@example("a:b/c")
@example(":v")
@example("./name")
@example("owner/..")
@example("f" * 63)
@example("f" * 65)
@example("f" * 63 + "g")
@example("owner/name\n")
@example("f" * 64 + "\n")
@example("owner/\ud800")
def test_anything_else_is_refused(text: str) -> None:
    """Any other text raises InvalidReference, which quotes it."""
    names, colon, version = text.partition(":")
    parts = [*names.split("/"), *([version] if colon else [])]
    is_name = len(parts) == 2 + bool(colon) and all(
        part not in {"", ".", ".."} and not set(part) & set("/:?#%\\") and part.isprintable()
        for part in parts
    )
    try:
        reference = parse_reference(text)
    except InvalidReference as error:
        assert error.argument == "ref"
        assert repr(text) in str(error)
        hex_digits = len(text) == 64 and set(text) <= set(string.hexdigits)
        # White space is refused although some of it is printable.
        assert not hex_digits
        assert not is_name or any(c.isspace() or not c.isprintable() for c in text)
    else:
        assert str(reference) == text
        assert reference.full_name or set(text) <= set(string.hexdigits)
        if reference.full_name:
            assert len(parts) == 2 + bool(colon)
            assert all(part and not set(part) & set("/:?#%\\ \n") for part in parts)


@pytest.mark.parametrize("value", [None, 5, b"a/b", ["a/b"]])
def test_other_types_are_refused(value: Any) -> None:
    """References of other types than str raise ArgumentTypeError."""
    with pytest.raises(ArgumentTypeError, match="model"):
        parse_reference(value, "model")
    with pytest.raises(ArgumentTypeError, match="model"):
        parse_name(value, None, "model")
    with pytest.raises(ArgumentTypeError, match="id"):
        identifier(value, "id")


@given(st.text(min_size=1))
@example("NGZiNmY2YzQt/+==")
@example("a%2Fb")
@example("..")
@example("\ud800")
def test_identifiers_are_one_segment(text: str) -> None:
    """An opaque ID is encoded as one segment of a path, which decodes to it, or refused."""
    try:
        quoted = identifier(text, "id")
    except InvalidReference:
        assert (
            text in {".", ".."}
            or any(ord(c) < 33 or ord(c) == 127 for c in text)
            or any(0xD800 <= ord(c) < 0xE000 for c in text)
        )
    else:
        assert unquote(quoted) == text
        assert not set(quoted) & set("/?#& \n")
