"""JSON to objects: strict about identity, lenient about everything else, and nothing is lost."""

from __future__ import annotations

import copy
import json
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from replicate_async import (
    Account,
    Collection,
    Deployment,
    File,
    Hardware,
    Model,
    Prediction,
    SearchResults,
    Training,
    Version,
)
from replicate_async._codec import decode_json, encode_json, parse_datetime, structure
from replicate_async._json import shown, to_text
from replicate_async.resources.webhooks import WebhookSigningSecret
from replicate_async.types import CollectionSummary, DeploymentRelease, Record

HELLO = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"
API = "https://api.replicate.com/v1"

VERSION: dict[str, Any] = {
    "id": HELLO,
    "created_at": "2025-11-30T19:29:04.418669Z",
    "cog_version": "0.16.7",
    "openapi_schema": {"openapi": "3.0.2", "components": {"schemas": {"Input": {}}}},
}
PREDICTION: dict[str, Any] = {
    "id": "wm41d8ffq9rgj0cjb2ysrvzve0",
    "model": "acme/greeter",
    "version": HELLO,
    "deployment": "greeter-prod",
    "input": {"text": "Alice", "nested": [1, None, {"a": 2.5}]},
    "logs": "Using seed: 7\n",
    "output": ["https://replicate.delivery/xezq/example/out-0.png"],
    "data_removed": False,
    "error": "",
    "source": "api",
    "status": "succeeded",
    "created_at": "2025-12-02T10:15:30.123Z",
    "started_at": "2025-12-02T10:15:30.136176Z",
    "completed_at": "2025-12-02T10:15:33.148859123Z",
    "deadline": "2025-12-02T10:20:30Z",
    "metrics": {"predict_time": 3e-06, "total_time": 0.135578, "image_count": 1},
    "webhook": "https://example.com/hook?job=42",
    "webhook_events_filter": ["completed"],
    "urls": {
        "cancel": f"{API}/predictions/wm41d8ffq9rgj0cjb2ysrvzve0/cancel",
        "get": f"{API}/predictions/wm41d8ffq9rgj0cjb2ysrvzve0",
        "stream": "https://stream.replicate.com/v1/files/abcd-exampletoken",
        "web": "https://replicate.com/p/wm41d8ffq9rgj0cjb2ysrvzve0",
    },
}
TRAINING: dict[str, Any] = {
    "completed_at": "2025-12-02T16:41:19.826523Z",
    "created_at": "2025-12-02T16:32:57.018467Z",
    "started_at": "2025-12-02T16:32:57.112647Z",
    "error": None,
    "id": "zz4ibbonubfz7carwiefibzgga",
    "input": {"input_images": "https://example.com/my-input-images.zip"},
    "logs": "done",
    "metrics": {"predict_time": 502.713876},
    "output": {
        "version": f"acme/tuned:{HELLO}",
        "weights": "https://replicate.delivery/pbxt/example/trained_model.tar",
    },
    "source": "api",
    "status": "succeeded",
    "urls": {
        "web": "https://replicate.com/p/zz4ibbonubfz7carwiefibzgga",
        "get": f"{API}/trainings/zz4ibbonubfz7carwiefibzgga",
        "cancel": f"{API}/trainings/zz4ibbonubfz7carwiefibzgga/cancel",
    },
    "model": "acme/base-model",
    "version": HELLO,
    "webhook": None,
    "webhook_events_filter": ["start", "completed"],
}
MODEL: dict[str, Any] = {
    "url": "https://replicate.com/acme/greeter",
    "owner": "acme",
    "name": "greeter",
    "description": "Says hello",
    "visibility": "public",
    "is_official": False,
    "github_url": "https://github.com/acme/greeter",
    "paper_url": None,
    "license_url": "https://example.com/license",
    "weights_url": None,
    "run_count": 5681081,
    "cover_image_url": "https://example.com/cover.png",
    "created_at": "2025-11-30T19:29:04.418669Z",
    "default_example": PREDICTION,
    "latest_version": VERSION,
}
ACCOUNT: dict[str, Any] = {
    "type": "organization",
    "username": "acme",
    "name": "Acme Corp, Inc.",
    "github_url": "https://github.com/acme",
    "avatar_url": "https://cdn.replicate.com/avatars/acme.png",
}
COLLECTION: dict[str, Any] = {
    "name": "Super resolution",
    "slug": "super-resolution",
    "description": "Models that enlarge images.",
}
FILE: dict[str, Any] = {
    "id": "NGZiNmY2YzQtMThhZi00ZjcyLWFhZjktODg4NTY0NWNlMDEy",
    "name": "notes.txt",
    "content_type": "text/plain",
    "size": 0,
    "etag": "d41d8cd98f00b204e9800998ecf8427e",
    "checksums": {"sha256": "e3b0", "md5": "d41d"},
    "metadata": {"customer_reference_id": 123},
    "created_at": "2025-12-02T12:26:51.079Z",
    "expires_at": "2025-12-03T12:26:51.079Z",
    "urls": {"get": f"{API}/files/NGZiNmY2YzQ"},
}
DEPLOYMENT: dict[str, Any] = {
    "owner": "acme",
    "name": "greeter-prod",
    "current_release": {
        "number": 1,
        "model": "acme/greeter",
        "version": HELLO,
        "created_at": "2025-11-30T16:32:57.018467Z",
        "created_by": ACCOUNT,
        "configuration": {"hardware": "gpu-l40s", "min_instances": 0, "max_instances": 3},
    },
}
SEARCH: dict[str, Any] = {
    "query": "nano banana",
    "models": [
        {
            "model": MODEL,
            "metadata": {
                "generated_description": "Edits images.",
                "score": 1.38,
                "tags": ["text-to-image", "image-editing"],
            },
        }
    ],
    "collections": [{**COLLECTION, "models": ["google/nano-banana"]}],
    "pages": [{"name": "Getting started", "href": "/docs/guides/image-editing"}],
}

EXAMPLES: list[tuple[type[Record], dict[str, Any]]] = [
    (Prediction, PREDICTION),
    (Training, TRAINING),
    (Model, MODEL),
    (Version, VERSION),
    (Deployment, DEPLOYMENT),
    (File, FILE),
    (Account, ACCOUNT),
    (Hardware, {"sku": "cpu", "name": "CPU"}),
    (CollectionSummary, COLLECTION),
    (Collection, {**COLLECTION, "full_description": "## Overview", "models": [MODEL, MODEL]}),
    (SearchResults, SEARCH),
    (WebhookSigningSecret, {"key": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"}),
]

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(["", "null", "2025-12-02T10:15:30Z", "0001-01-01T00:00:00+23:00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
UNKNOWN = st.sampled_from(["new", "x-new", "get", "self", "class", "items", "to_dict", "_raw", ""])


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, item in inside:
        found.append((*path, key))
        if isinstance(item, (dict, list)):
            found += _places(item, (*path, key))
    return found


@st.composite
def _damaged(draw: st.DrawFn, example: dict[str, Any]) -> dict[str, Any]:
    """Return an example with some fields removed, set to null, changed in type, or added."""
    damaged = copy.deepcopy(example)
    for _ in range(draw(st.integers(1, 6))):
        places = _places(damaged)
        if not places:
            break
        *parents, last = draw(st.sampled_from(places))
        holder = damaged
        for key in parents:
            holder = holder[key]
        match draw(st.sampled_from(["drop", "null", "retype", "add"])):
            case "drop":
                del holder[last]
            case "null":
                holder[last] = None
            case "retype":
                holder[last] = draw(JSON)
            case "add" if isinstance(holder, dict):
                holder[draw(UNKNOWN)] = draw(JSON)
    return damaged


def _fits(value: Any, kind: Any) -> bool:
    """Tell whether a value, and all objects inside it, have their declared types."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, member) for member in get_args(kind))
    if origin is Literal:
        return value in get_args(kind)
    if origin is list:
        return type(value) is list and all(_fits(item, get_args(kind)[0]) for item in value)
    if origin is dict:
        return type(value) is dict
    if kind is NoneType:
        return value is None
    if kind is float:
        return type(value) in (float, int)
    if kind is datetime:
        return type(value) is datetime and value.tzinfo is not None
    if attrs.has(kind):
        return type(value) is kind and _is_sound(value)
    return type(value) is kind


def _is_sound(made: Any) -> bool:
    """Tell whether all fields of an object have their declared types."""
    hints = get_type_hints(type(made))
    return all(
        _fits(getattr(made, field.name), hints[field.name])
        for field in attrs.fields(type(made))
        if not field.name.startswith("_")
    )


def _wire_fields(kind: type[Record]) -> list[attrs.Attribute[Any]]:
    return [field for field in attrs.fields(kind) if not field.name.startswith("_")]


@pytest.mark.parametrize(
    ("kind", "example"), EXAMPLES, ids=lambda value: getattr(value, "__name__", "")
)
def test_examples(kind: type[Record], example: dict[str, Any]) -> None:
    """Each field of the API reference's examples is a field of the object, and none is left over."""
    made = structure(copy.deepcopy(example), kind)
    assert _is_sound(made)
    assert made.to_dict() == example
    assert made.extra == {}
    for field in _wire_fields(kind):
        value, sent = getattr(made, field.name), example.get(field.name)
        if isinstance(sent, (str, int, float)) and not isinstance(value, datetime):
            assert value == sent
        if sent is not None:
            assert value is not None


@pytest.mark.parametrize(
    ("kind", "example"), EXAMPLES, ids=lambda value: getattr(value, "__name__", "")
)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_damage(kind: type[Record], example: dict[str, Any], data: st.DataObject) -> None:
    """Damaged JSON gives a sound object, or a ValueError if an identifying field is affected."""
    damaged = data.draw(_damaged(example))
    before = copy.deepcopy(damaged)
    required = [field for field in _wire_fields(kind) if field.default is attrs.NOTHING]
    if any(type(damaged.get(field.name)) is not str for field in required):
        with pytest.raises(ValueError, match=kind.__name__):
            structure(damaged, kind)
        return
    made = structure(damaged, kind)
    assert _is_sound(made)
    assert made.to_dict() == before
    known = {field.name for field in _wire_fields(kind)} | kind._computed
    for name, value in before.items():
        if name not in known | {"_raw"}:
            assert made.extra[name] == value
    assert not set(made.extra) & known


@pytest.mark.parametrize(
    ("kind", "example"), EXAMPLES, ids=lambda value: getattr(value, "__name__", "")
)
def test_each_field_may_be_missing(kind: type[Record], example: dict[str, Any]) -> None:
    """A missing, null or mistyped field has its default; only identifying fields are required."""
    for field in _wire_fields(kind):
        without = {name: value for name, value in example.items() if name != field.name}
        for damaged in (without, {**example, field.name: None}, {**example, field.name: [[]]}):
            if field.default is attrs.NOTHING:
                with pytest.raises(ValueError, match=kind.__name__):
                    structure(damaged, kind)
                continue
            default = field.default
            if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class, typed as a function
                default = default.factory()  # type: ignore[union-attr]
            assert getattr(structure(damaged, kind), field.name) == default, field.name


def test_required_fields() -> None:
    """No other fields are required: without one of them, there is no object."""
    assert {
        kind.__name__: [f.name for f in _wire_fields(kind) if f.default is attrs.NOTHING]
        for kind, _ in EXAMPLES
    } == {
        "Prediction": ["id"],
        "Training": ["id"],
        "Model": ["owner", "name"],
        "Version": ["id"],
        "Deployment": ["owner", "name"],
        "File": ["id"],
        "Account": ["username"],
        "Hardware": ["sku"],
        "CollectionSummary": ["slug"],
        "Collection": ["slug"],
        "SearchResults": [],
        "WebhookSigningSecret": ["key"],
    }


@pytest.mark.parametrize("kind", [kind for kind, _ in EXAMPLES])
@pytest.mark.parametrize("value", [None, [], "text", 5, True, [{}]])
def test_other_json_than_objects(kind: type[Record], value: Any) -> None:
    """JSON other than an object is a ValueError that names the expected class."""
    with pytest.raises(ValueError, match=kind.__name__):
        structure(value, kind)


def test_broken_items_of_lists_are_left_out() -> None:
    """An invalid item does not affect the others, and `to_dict` keeps it."""
    data = {**SEARCH, "models": [None, {"model": {}}, SEARCH["models"][0], 5]}
    made = structure(data, SearchResults)
    assert [match.model.full_name for match in made.models] == ["acme/greeter"]
    assert made.to_dict() == data


def test_both_styles() -> None:
    """The JSON of both backends gives the same fields (:api:`json-styles`)."""
    service = {
        "id": "abc",
        "model": "acme/greeter",
        "version": HELLO,
        "input": {"text": "Alice"},
        "logs": "",
        "status": "starting",
        "created_at": "2025-12-02T10:15:30.123456789Z",
        "urls": {"get": f"{API}/predictions/abc"},
    }
    django = {
        "completed_at": None,
        "created_at": "2025-12-02T10:15:30.123456Z",
        "error": None,
        "id": "abc",
        "input": {"text": "Alice"},
        "logs": None,
        "metrics": {},
        "model": "acme/greeter",
        "output": None,
        "started_at": None,
        "status": "starting",
        "urls": {"get": f"{API}/predictions/abc"},
        "version": HELLO,
        "webhook": None,
    }
    one, other = structure(service, Prediction), structure(django, Prediction)
    for field in _wire_fields(Prediction):
        assert getattr(one, field.name) == getattr(other, field.name), field.name


def test_unknown_values_of_enumerations_stay_strings() -> None:
    """An unknown status is kept."""
    made = structure({**PREDICTION, "status": "warming", "source": "robot"}, Prediction)
    assert (made.status, made.source) == ("warming", "robot")


def test_booleans_are_not_numbers() -> None:
    """A bool in the place of a number has the default, and the other way round."""
    assert structure({**MODEL, "run_count": True}, Model).run_count is None
    assert structure({**MODEL, "is_official": 1}, Model).is_official is None
    assert structure({**FILE, "size": 1.5}, File).size is None


def test_to_dict_is_a_copy() -> None:
    """Changing the result of `to_dict` or `extra` does not change the object."""
    made = structure({**copy.deepcopy(PREDICTION), "new": [1]}, Prediction)
    made.to_dict()["input"].clear()
    made.extra["new"].clear()
    assert made.to_dict()["input"] == PREDICTION["input"]
    assert made.extra == {"new": [1]}


@given(
    st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),  # noqa: DTZ001
    st.integers(0, 9),
    st.integers(0, 999_999_999),
    st.sampled_from(["Z", "+00:00", "", "+02:00", "-11:30"]),
)
@example(datetime(2025, 12, 2), 0, 0, "Z")  # noqa: DTZ001
@example(datetime(2025, 12, 2), 9, 999_999_999, "Z")  # noqa: DTZ001
def test_timestamps(moment: datetime, digits: int, nanoseconds: int, zone: str) -> None:
    """Timestamps are aware and have 0 to 9 fractional digits, of which six are kept."""
    moment = moment.replace(microsecond=0)
    fraction = f"{nanoseconds:09}"[:digits]
    text = moment.isoformat() + (f".{fraction}" if fraction else "") + zone
    parsed = parse_datetime(text)
    micro = int(fraction.ljust(9, "0")[:6])
    assert parsed.utcoffset() is not None
    assert parsed.replace(tzinfo=None) == moment + timedelta(microseconds=micro)
    assert parsed.utcoffset() == (
        parse_datetime("2000-01-01T00:00:00" + zone).utcoffset() if zone else timedelta(0)
    )
    made = structure({"id": "a", "created_at": text, "started_at": text}, Prediction)
    assert made.created_at == made.started_at == parsed


@given(st.text() | st.from_regex(r"[0-9TZ:.+ -]*"))
def test_timestamps_of_anything(text: str) -> None:
    """Text that is not a timestamp gives None, and the other fields are kept."""
    made = structure({"id": "a", "created_at": text, "status": "failed"}, Prediction)
    assert made.status == "failed"
    assert made.created_at is None or made.created_at.tzinfo is not None


# -- JSON --------------------------------------------------------------------------------------


@given(JSON)
def test_json_round_trips(value: Any) -> None:
    """Encoding and decoding gives the same value."""
    assume(not _has_infinity(value))
    assert decode_json(encode_json(value)) == value


def _has_infinity(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_infinity, value.values()))
    if isinstance(value, list):
        return any(map(_has_infinity, value))
    return value in (float("inf"), float("-inf"))


@given(st.text(st.characters(exclude_categories=()) | st.sampled_from(["\ud83d", "\ude00"])))
@example("\ud83d\ude00")
def test_any_text_can_be_encoded(text: str) -> None:
    """Any string can be encoded, in UTF-8 where possible, and decoded again."""
    body = encode_json({text: text})
    # Both halves of a character make that character.
    joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    assert decode_json(body) == {joined: joined} == json.loads(body.decode())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_without_json(value: float) -> None:
    """NaN, infinity and other objects are refused."""
    with pytest.raises(ValueError, match="JSON"):
        encode_json({"a": value})
    with pytest.raises(TypeError):
        encode_json({"a": object()})


@given(st.binary())
@example(b"")
@example(b"\xff")
@example(b"[" * 100_000)
@example(b"<html></html>")
@example(b'{"a": 1')
@example(b"\xef\xbb\xbf{}")
@example(b"1" * 5000)
@example(b'"\xed\xa0\xbd"')
@example(b'{"\\ud800": "\\udfff\\ud800"}')
@example(b"\xff\xfe\x00\xd8")
def test_decoding_anything(body: bytes) -> None:
    """Bytes other than JSON raise ValueError."""
    try:
        decode_json(body)
    except ValueError as error:
        assert "JSON" in str(error)  # noqa: PT017


NUMBERS = st.from_regex(
    r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,5})?", fullmatch=True
)
STRINGS = st.from_regex(
    r'"([^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[dD][89a-fA-F][0-9a-f]{2})*"', fullmatch=True
)
TEXTS = st.recursive(
    NUMBERS | STRINGS | st.sampled_from(["null", "true", "9" * 4301, "-" + "1" * 5000]),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(STRINGS, inner), max_size=3).map(
            lambda pairs: "{" + ",".join(f"{key}: {value}" for key, value in pairs) + "}"
        )
    ),
    max_leaves=6,
)


@given(TEXTS, st.sampled_from(["utf-8", "utf-16", "utf-32-le", "utf-8-sig"]))
@settings(deadline=None)
def test_decoding_of_any_json(text: str, encoding: str) -> None:
    """Each text of JSON's grammar is read, and can be the value of any field."""
    value = decode_json(text.encode(encoding, "surrogatepass"))
    made = structure(dict.fromkeys(PREDICTION, value) | {"id": "abc", "new": value}, Prediction)
    assert _is_sound(made)
    assert made.extra == {"new": value}


@pytest.mark.parametrize("digits", [2, 512, 513, 4300, 4301, 99_999])
def test_long_integers(digits: int) -> None:
    """Integers are exact beyond the digits that Python converts by itself."""
    limit = sys.get_int_max_str_digits()
    text = f"1{'0' * (digits - 2)}7"
    expected = 10 ** (digits - 1) + 7
    assert decode_json(f"[{text}, -{text}]".encode()) == [expected, -expected]
    assert sys.get_int_max_str_digits() == limit


def test_endless_integers() -> None:
    """Integers beyond all use do not take time: they are infinite, as too large floats are."""
    assert decode_json(b"9" * 10_000_000) == float("inf")
    assert decode_json(b"-" + b"9" * 10_000_000) == -float("inf")


@pytest.mark.parametrize("digits", [640, 4301, 100_000])
@pytest.mark.parametrize("sign", [1, -1])
def test_long_integers_are_written(digits: int, sign: int) -> None:
    """Integers of more digits than Python converts are written, beside whatever else there is."""
    number = sign * (10 ** (digits - 1) + 7)
    value = {"a": [number, "ä\ud800", 1.5, None, True], "b": {}, "c": [], "d": {"e": [[]]}}
    assert decode_json(encode_json(value)) == value
    for indent in (None, 1):
        assert decode_json(to_text(value, indent=indent)) == value


def test_integers_that_cannot_be_written() -> None:
    """Encoding an integer of more than 100,000 digits is a ValueError; so is what is no JSON beside a long one."""
    long = 10**5000
    for value in (10**100_001, [long, float("nan")], [long, float("inf")]):
        with pytest.raises(ValueError, match=r"digits|float values"):
            encode_json({"a": value})
    endless: list[object] = [long]
    endless.append(endless)
    with pytest.raises(ValueError, match=r"[Cc]ircular"):
        encode_json(endless)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda some: st.lists(some) | st.dictionaries(st.text() | st.integers(), some),
    ),
    st.sampled_from([None, 1, 2]),
    st.booleans(),
)
def test_texts_are_those_of_the_standard_library(
    value: object, indent: int | None, ascii_only: bool
) -> None:
    """What the standard library refuses is written in the same way as what it accepts."""
    expected = json.dumps(["@", value], indent=indent, ensure_ascii=ascii_only)
    found = to_text([10**5000, value], indent=indent, ascii_only=ascii_only)
    assert found == expected.replace('"@"', "1" + "0" * 5000, 1)


def test_deep_values_are_shown() -> None:
    """Whatever the depth and the length, there is a text to show and to save."""
    deep: object = 10**5000
    for _ in range(50_000):
        deep = [deep]
    assert "1" + "0" * 5000 in shown(deep)
    assert to_text(deep).count("[") == 50_000
    assert shown([1, "a"]) == "[1, 'a']"


@pytest.mark.parametrize("levels", [100, 900, 1100, 5000, 100_000])
@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a":', "}")])
def test_deep_nesting(levels: int, start: str, end: str) -> None:
    """Deeply nested JSON is read, copied and written, or a ValueError."""
    text = f'{{"id":"abc","output":{start * levels}1{end * levels}}}'.encode()
    try:
        data = decode_json(text)
    except ValueError as error:
        assert levels > 500
        assert "nested" in str(error)  # noqa: PT017
        return
    made = structure(data, Prediction)
    assert made.to_dict()["output"] is not data["output"]
    with suppress(ValueError):
        assert encode_json(made.to_dict()) == text


def test_circles() -> None:
    """Encoding what contains itself is a ValueError."""
    circle: list[Any] = []
    circle.append({"a": circle})
    with pytest.raises(ValueError, match="Circular"):
        encode_json(circle)


TIMESTAMPS = st.from_regex(
    r"(0001|9999|[0-9]{4})-(01|12|[0-9]{2})-(01|31|[0-9]{2})[Tt ]"
    r"(23:59:59|00:00:00|24:00:00|[0-9]{2}:[0-9]{2}(:[0-9]{2})?)([.,][0-9]{1,9})?"
    r"([Zz]|[+-](23:59|00:00|[0-9]{2}:[0-9]{2}(:[0-9]{2})?))?",
    fullmatch=True,
)


@given(TIMESTAMPS)
@example("0001-01-01T00:00:00+00:01")
@example("0001-01-01T00:00:00Z")
@example("9999-12-31T23:59:59.999999999Z")
@example("9999-12-31T23:59:59-00:01")
@example("9999-12-31T24:00:00Z")
@example("2025-12-02T10:15:30+24:00")
@example("2025-12-02T10:15:3\ud800")
def test_timestamps_can_be_used(text: str) -> None:
    """A timestamp has a time in UTC, or it is a ValueError; in an object, the field has its default."""
    made = structure({"id": "abc", "created_at": text}, Prediction)
    try:
        parsed = parse_datetime(text)
    except ValueError:
        assert made.created_at is None
    else:
        assert made.created_at == parsed == parsed.astimezone(UTC)
        assert parsed.timestamp() == pytest.approx(parsed.astimezone(UTC).timestamp())


def test_the_last_moments_are_timestamps() -> None:
    """The first and the last second of the calendar, which stand for never, are read."""
    assert parse_datetime("0001-01-01T00:00:00Z") == datetime.min.replace(tzinfo=UTC)
    assert parse_datetime("9999-12-31T23:59:59Z").year == 9999
    for text in ("0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01"):
        with pytest.raises(ValueError, match="out of range"):
            parse_datetime(text)


def test_utc_is_the_default() -> None:
    """A timestamp without an offset is in UTC."""
    assert parse_datetime("2025-12-02T10:15:30") == datetime(2025, 12, 2, 10, 15, 30, tzinfo=UTC)


@pytest.mark.parametrize("number", [10**18, -(10**4300)], ids=["large", "huge"])
def test_counts_that_cannot_be_shown(number: int) -> None:
    """A count that is none is ignored, so that its object can be shown."""
    found = structure({"number": number, "model": "acme/x"}, DeploymentRelease)
    assert found.number == DeploymentRelease().number
    assert "acme/x" in repr(found)
