"""References: valid ones round-trip, and anything else is refused."""

# ruff: noqa: PT017  (whether it raises depends on what is drawn)

from __future__ import annotations

import re
import string
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from replicate_async._references import identifier, parse_name, parse_reference, parse_version
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


SPACE = st.text(" \t\r\n\u00a0", max_size=3)
SITES = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "http://", "https://", "HTTPS://"]),
    st.sampled_from(["", "www.", "WWW."]),
    st.sampled_from(["replicate.com/", "Replicate.com/"]),
)
TAILS = st.sampled_from(
    ["", "/", "?input=python", "#top", "/?a=b/c#d", "/api", "/api/schema", "/readme?x"]
)


@given(SPACE, SITES, SEGMENTS, SEGMENTS, TAILS, SPACE)
def test_pages_of_models(
    before: str, site: str, owner: str, name: str, tail: str, after: str
) -> None:
    """The URL of a model's page, or of one of its tabs, is the model."""
    assume(owner not in {"models", "deployments"})
    text = f"{before}{site}{owner}/{name}{tail}{after}"
    assert str(parse_reference(text)) == f"{owner}/{name}"
    assert parse_name(text, None, "model") == (owner, name)


@given(SPACE, SITES, SEGMENTS, SEGMENTS, st.one_of(VERSIONS, SEGMENTS), TAILS)
def test_pages_of_versions(
    before: str, site: str, owner: str, name: str, version: str, tail: str
) -> None:
    """The URL of a version's page is the version; where a model is expected, it is its model or refused."""
    assume(owner not in {"models", "deployments"})
    text = f"{before}{site}{owner}/{name}/versions/{version}{tail}"
    assert str(parse_reference(text)) == f"{owner}/{name}:{version}"
    assert parse_version(text, "version").version == version
    assert parse_name(text, None, "model", ignore_version=True) == (owner, name)
    with pytest.raises(InvalidReference):
        parse_name(text, None, "model")


@given(SITES, SEGMENTS, SEGMENTS, TAILS)
def test_pages_of_deployments(site: str, owner: str, name: str, tail: str) -> None:
    """The URL of a deployment is one where a deployment is expected, and no model of that name elsewhere."""
    text = f"{site}deployments/{owner}/{name}{tail}"
    assert parse_name(text, None, "deployment") == (owner, name)
    with pytest.raises(InvalidReference):
        parse_reference(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" owner/name ", "owner/name"),
        ("owner/name/", "owner/name"),
        ("owner/name\n", "owner/name"),
        ("owner/name:v1/", "owner/name:v1"),
        ("f" * 64 + "\n", "f" * 64),
        ("https://api.replicate.com/v1/models/owner/name", "owner/name"),
        ("https://api.replicate.com/v1/models/owner/name/versions/v1", "owner/name:v1"),
        ("dp-4f1e", "dp-4f1e"),
        ("dp-4f1e0c9a8b7d6e5f", "dp-4f1e0c9a8b7d6e5f"),
        ("01hzx3v7k2m4n5p6q8r9s0t1u2", "01hzx3v7k2m4n5p6q8r9s0t1u2"),
    ],
)
def test_other_spellings(text: str, expected: str) -> None:
    """What is pasted with more or less than it needs is understood."""
    assert str(parse_reference(text)) == expected


@given(SEGMENTS)
@example("hidden")
@example("dp-4f1e")
def test_the_service_judges_ids_of_versions(version: str) -> None:
    """Where only a version can be meant, its ID may have any form."""
    assert parse_version(f" {version}\n", "version").version == version


@given(st.text(st.one_of(st.characters(), st.sampled_from("/:. ab%?#\\\n"))))
@example("owner")
@example("owner/name/")
@example("owner/name//")
@example("/owner/name")
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
@example("https://replicate.com/")
@example("https://replicate.com/owner")
@example("https://replicate.com/owner/name/nonsense")
@example("https://replicate.com/p/abc")
@example("https://replicate.com.evil.com/owner/name")
def test_anything_else_is_refused(text: str) -> None:
    """Any other text raises InvalidReference, which quotes it; what is parsed is formatted as it was."""
    plain = text.strip().removesuffix("/")
    names, colon, version = plain.partition(":")
    parts = [*names.split("/"), *([version] if colon else [])]
    is_name = len(parts) == 2 + bool(colon) and all(
        part not in {"", ".", ".."} and not set(part) & set("/:?#%\\") and part.isprintable()
        for part in parts
    )
    try:
        reference = parse_reference(text)
    except InvalidReference as error:
        assert error.argument == "ref"
        assert repr(text) in str(error) or repr(text.strip()) in str(error)
        hex_digits = len(plain) == 64 and set(plain) <= set(string.hexdigits)
        # White space is refused although some of it is printable.
        assert not hex_digits
        assert not is_name or any(c.isspace() or not c.isprintable() for c in plain)
    else:
        assert str(reference) == plain or "replicate.com/" in plain
        if reference.full_name and "replicate.com/" not in plain:
            assert len(parts) == 2 + bool(colon)
            assert all(part and not set(part) & set("/:?#%\\ \n") for part in parts)
        assert parse_reference(str(reference)) == reference


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
@example("../x")
@example("a\\..\\b")
@example("\ud800")
def test_identifiers_are_one_segment(text: str) -> None:
    """An opaque ID is encoded as one segment of a path, which decodes to it, or refused."""
    try:
        quoted = identifier(text, "id")
    except InvalidReference:
        assert (
            {"", ".", ".."} & set(text.replace("\\", "/").split("/"))
            or any(ord(c) < 33 or ord(c) == 127 for c in text)
            or any(0xD800 <= ord(c) < 0xE000 for c in text)
        )
    else:
        assert unquote(quoted) == text
        assert not set(quoted) & set("/?#& \n")
        assert not re.search(r"(?:^|%2F|%5C)\.{0,2}(?:$|%2F|%5C)", quoted, re.IGNORECASE)
