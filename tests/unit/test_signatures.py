"""Signatures of webhooks: the test vectors of the API reference, and arbitrary headers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from replicate_async import Client
from replicate_async._signatures import sign, verify
from replicate_async.exceptions import ArgumentError, ArgumentTypeError, InvalidSignature

SECRET_1 = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID_1 = "msg_p5jXN8AQM9LWM0D4loKWxJek"
BODY_1 = b'{"test": 2432232314}'
VALID_1 = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
INVALID_1 = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc="
SECRET_3 = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
ID_3 = "msg_2mZJ3yVvq1QGqkD6Yc6q0b1zF4L"

VECTORS = [
    (SECRET_1, ID_1, 1614265330, BODY_1, VALID_1, True),
    (SECRET_1, ID_1, 1614265330, BODY_1, INVALID_1, False),
    (
        SECRET_3,
        ID_3,
        1729000000,
        b'{"id":"ufawqhfynnddngldkgtslldrkq","status":"succeeded"}',
        "v1,ZiphLQJPLh+uGbn/UMo5zztJ0mXQ5pR3n1WskfAob40=",
        True,
    ),
    (SECRET_3, ID_3, 1729000000, b"", "v1,w5fCGb/Oeen5ODBCAjqmG0uCQ8iR1FY5zkLi7zaXK/U=", True),
    (
        SECRET_3,
        ID_3,
        1729000000,
        '{"id":"ufawqhfynnddngldkgtslldrkq","logs":"caf\u00e9 \u2615\\n"}'.encode(),
        "v1,sga6Ypi8lXjb9Db08y221xhqP+svvT3bQNUDkeE0mb4=",
        True,
    ),
]


def headers_of(id: str, timestamp: int, signature: str) -> dict[str, str]:
    """Return the headers of a delivery."""
    return {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature,
    }


GOOD = headers_of(ID_1, 1614265330, VALID_1)


@pytest.mark.parametrize(("secret", "id", "timestamp", "body", "signature", "valid"), VECTORS)
def test_the_vectors_of_the_reference(
    secret: str, id: str, timestamp: int, body: bytes, signature: str, *, valid: bool
) -> None:
    """Each test vector (:api:`webhook-signature`) is accepted or refused, as bytes and as text."""
    headers = headers_of(id, timestamp, signature)
    webhooks = Client("r8_x").webhooks
    for given_body in (body, body.decode()):
        if valid:
            webhooks.validate(headers, given_body, secret, tolerance=None)
        else:
            with pytest.raises(InvalidSignature):
                webhooks.validate(headers, given_body, secret, tolerance=None)


@pytest.mark.parametrize(
    "signature",
    [
        f"{INVALID_1} {VALID_1}",
        f"{VALID_1} {INVALID_1}",
        f"v2,whatever v1a,{INVALID_1[3:]} {VALID_1}",
        f"nonsense v1, {VALID_1}",
        f"{VALID_1} ",
    ],
)
def test_one_match_in_the_list_is_enough(signature: str) -> None:
    """Other signatures in the list, other versions and malformed entries are skipped."""
    verify({**GOOD, "webhook-signature": signature}, BODY_1, SECRET_1, tolerance=None, now=0)


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "v1,",
        "v1",
        VALID_1[3:],
        VALID_1.replace("v1,", "v2,"),
        VALID_1.replace("v1,", "v1a,"),
        VALID_1.removesuffix("="),
        VALID_1.replace(",", ", "),
        VALID_1.lower(),
    ],
)
def test_malformed_signatures_do_not_match(signature: str) -> None:
    """An entry without version, comma, padding or content matches nothing."""
    with pytest.raises(InvalidSignature):
        verify({**GOOD, "webhook-signature": signature}, BODY_1, SECRET_1, tolerance=None, now=0)


@pytest.mark.parametrize("name", GOOD)
def test_a_missing_header_is_named(name: str) -> None:
    """Each of the three headers is required."""
    headers = {key: value for key, value in GOOD.items() if key != name}
    with pytest.raises(InvalidSignature, match=name):
        verify(headers, BODY_1, SECRET_1, tolerance=None, now=0)


def test_the_case_of_header_names_does_not_matter() -> None:
    """Headers are found in any case."""
    headers = {name.title(): value for name, value in GOOD.items()}
    verify(headers, BODY_1, SECRET_1, tolerance=None, now=0)


@pytest.mark.parametrize("body", [BODY_1 + b" ", b"", BODY_1.replace(b" ", b""), b"\xff"])
def test_another_body_does_not_match(body: bytes) -> None:
    """The signature covers each byte of the body."""
    with pytest.raises(InvalidSignature):
        verify(GOOD, body, SECRET_1, tolerance=None, now=0)


@pytest.mark.parametrize(
    ("off", "good"), [(0, True), (300, True), (-300, True), (301, False), (-301, False)]
)
def test_deliveries_must_be_recent(off: int, *, good: bool) -> None:
    """The timestamp may differ from the present by the tolerance, in both directions."""
    now = 1614265330 + off
    if good:
        verify(GOOD, BODY_1, SECRET_1, tolerance=300, now=now)
    else:
        with pytest.raises(InvalidSignature, match="301"):
            verify(GOOD, BODY_1, SECRET_1, tolerance=300, now=now)


def test_five_minutes_are_the_default() -> None:
    """Without a tolerance, an old delivery is refused."""
    assert time.time() > 1614265330 + 300
    with pytest.raises(InvalidSignature):
        Client("r8_x").webhooks.validate(GOOD, BODY_1, SECRET_1)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_!", "whsec_caf\u00e9", "not base64 at all"]
)
def test_a_bad_secret_is_an_argument_error(secret: str) -> None:
    """A malformed secret raises ArgumentError: it is the receiver's mistake, not the sender's."""
    with pytest.raises(ArgumentError) as caught:
        verify(GOOD, BODY_1, secret, tolerance=None, now=0)
    assert not isinstance(caught.value, InvalidSignature)


def test_a_secret_of_bytes_is_a_type_error() -> None:
    """A secret of another type than str raises ArgumentTypeError."""
    with pytest.raises(ArgumentTypeError):
        verify(GOOD, BODY_1, SECRET_1.encode(), tolerance=None, now=0)  # type: ignore[arg-type]  # the point


@pytest.mark.parametrize(
    "tolerance",
    [float("nan"), float("inf"), float("-inf"), -1, -0.1, True, False, "300", [300], 300j, b"300"],
)
def test_a_tolerance_is_a_number_of_seconds(tolerance: Any) -> None:
    """What is no finite number of seconds is refused, whatever the age of the delivery."""
    headers = headers_of(ID_1, 1614265330, VALID_1)
    for now in (1614265330, 10**10):
        with pytest.raises((ArgumentError, ArgumentTypeError), match="tolerance") as caught:
            verify(headers, BODY_1, SECRET_1, tolerance=tolerance, now=now)
        assert not isinstance(caught.value, InvalidSignature)


def test_a_tolerance_may_be_zero_or_huge() -> None:
    """Any finite number of seconds is compared, also one that no float can hold."""
    verify(GOOD, BODY_1, SECRET_1, tolerance=0, now=1614265330)
    verify(GOOD, BODY_1, SECRET_1, tolerance=10**400, now=0)
    with pytest.raises(InvalidSignature):
        verify(GOOD, BODY_1, SECRET_1, tolerance=0, now=1614265331)


ODD: list[Any] = [None, 5, True, 1.5, object(), [], (), [("webhook-id", "x")], b"x", dict, {1}]


@pytest.mark.parametrize("headers", [*ODD, "x", [[]]])
def test_headers_are_a_mapping(headers: Any) -> None:
    """Anything else is the receiver's mistake."""
    with pytest.raises(ArgumentTypeError, match="headers"):
        Client("r8_x").webhooks.validate(headers, BODY_1, SECRET_1, None)


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("value", [None, 5, b"x", ["x"], ("x",), 1.5, True])
def test_values_of_headers_are_strings(name: str, value: Any) -> None:
    """A signed header of another type is the receiver's mistake."""
    with pytest.raises(ArgumentTypeError, match=name):
        Client("r8_x").webhooks.validate({**GOOD, name: value}, BODY_1, SECRET_1, None)


def test_other_headers_may_be_anything() -> None:
    """Names and values that are not signed are not looked at."""
    headers: Any = {**GOOD, 5: 6, b"webhook-id": b"x", None: None, "other": [b""]}
    Client("r8_x").webhooks.validate(headers, BODY_1, SECRET_1, None)


class PlainHeaders:
    """Headers as Werkzeug has them: with `items`, and no `Mapping`."""

    def items(self) -> Iterator[tuple[str, str]]:
        """Yield names and values."""
        yield from GOOD.items()


def test_headers_of_web_frameworks_need_no_base_class() -> None:
    """Whatever has `items` is a mapping."""
    headers: Any = PlainHeaders()
    Client("r8_x").webhooks.validate(headers, BODY_1, SECRET_1, None)


@pytest.mark.parametrize("secret", ODD)
def test_a_secret_is_a_string(secret: Any) -> None:
    """A secret of another type raises ArgumentTypeError, also where nothing else is wrong."""
    for check in (Client("r8_x").webhooks.validate, Client("r8_x").webhooks.unwrap):
        with pytest.raises(ArgumentTypeError, match="secret"):
            check(GOOD, BODY_1, secret, None)


@pytest.mark.parametrize("body", [value for value in ODD if value != b"x"])
def test_a_body_is_bytes_or_text(body: Any) -> None:
    """A body of another type raises ArgumentTypeError; one that was parsed cannot be verified."""
    for check in (Client("r8_x").webhooks.validate, Client("r8_x").webhooks.unwrap):
        with pytest.raises(ArgumentTypeError, match="body"):
            check(GOOD, body, SECRET_1, None)


anything = st.text(st.characters(), max_size=30)
values = st.one_of(anything, st.sampled_from([*GOOD.values(), "v1,", "v1,=", "1e5", "\u0661" * 5]))


@given(
    headers=st.dictionaries(st.one_of(st.sampled_from(list(GOOD)), anything), values),
    body=st.one_of(st.binary(max_size=30), anything),
    tolerance=st.sampled_from([None, 300.0]),
)
@example(headers={**GOOD, "webhook-id": "\ud800"}, body=b"", tolerance=None)
@example(headers={**GOOD, "webhook-timestamp": "9" * 12}, body=b"", tolerance=300.0)
@example(headers={**GOOD, "webhook-timestamp": "9" * 9999}, body=b"", tolerance=300.0)
@example(headers={**GOOD, "webhook-signature": "v1,\ud800"}, body=b"", tolerance=None)
@example(headers=GOOD, body="\ud800", tolerance=None)
def test_nothing_but_invalid_signature_escapes(
    headers: dict[str, str], body: bytes | str, tolerance: float | None
) -> None:
    """Arbitrary deliveries are refused with InvalidSignature."""
    with pytest.raises(InvalidSignature):
        verify(headers, body, SECRET_1, tolerance=tolerance, now=1614265330)


@pytest.mark.parametrize(("id", "timestamp"), [("msg_\ud800", "1"), ("msg_1", "\udfff")])
def test_signing_what_is_no_unicode(id: str, timestamp: str) -> None:
    """What cannot be sent is refused by its name."""
    with pytest.raises(ArgumentError, match="surrogate"):
        sign(SECRET_1, id, timestamp, b"")
