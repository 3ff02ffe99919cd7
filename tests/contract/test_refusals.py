"""What cannot stand in an input is refused with the true reason, and with what to pass instead."""

from __future__ import annotations

import concurrent.futures
import ctypes
import io
import itertools
import tarfile
import tempfile
import types
import urllib.parse
import warnings
import zipfile
from collections import UserString
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import fsspec
import httpx
import numpy as np
import pandas as pd
import polars as pl
import pydantic
import pytest
import urllib3.util
import yarl

from replicate_async import Client
from replicate_async.exceptions import ArgumentError, ArgumentTypeError
from replicate_async.sync import Client as SyncClient
from replicate_async.testing import Emulator

from .conftest import HELLO


class Settings(pydantic.BaseModel):
    """A model of pydantic."""

    width: int = 1


class Hidden(pydantic.BaseModel):
    """A model with a secret."""

    key: pydantic.SecretStr = pydantic.SecretStr("hush")


async def _coroutine() -> str:
    return "x"


async def _numbers() -> Any:
    yield 1


ROW: list[Any] = [("a", "i4"), ("t", "M8[ns]")]


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: Decimal("1.5"), "float(...) or str(...)"),
    (lambda: Fraction(1, 3), "a float or a string"),
    (lambda: 1j, "a float or a string"),
    (lambda: pydantic.HttpUrl("https://example.com/a.png"), "str(...)"),
    (lambda: yarl.URL("https://example.com/a.png"), "str(...)"),
    (lambda: httpx.URL("https://example.com/a.png"), "str(...)"),
    (lambda: urllib.parse.urlsplit("https://example.com/a.png"), "geturl()"),
    (lambda: urllib.parse.urlparse("https://example.com/a.png"), "geturl()"),
    (lambda: urllib.parse.urldefrag("https://example.com/a.png#b"), "geturl()"),
    (lambda: urllib3.util.parse_url("https://example.com/a.png"), "str(...)"),
    (Settings, 'model_dump(mode="json")'),
    (lambda: Hidden().key, "get_secret_value()"),
    (lambda: Settings, "it is a class"),
    (lambda: timedelta(seconds=5), "total_seconds()"),
    (lambda: print, "it is a function"),
    (lambda: lambda: 1, "it is a function"),
    (lambda: warnings, "it is a module"),
    (lambda: _coroutine(), "`await`"),
    (lambda: _numbers(), "async for"),
    (concurrent.futures.Future, "result()"),
    (lambda: np.datetime64("2025-01-02"), "str(...)"),
    (lambda: np.datetime64("2025-01-02T03:04:05.123456789", "ns"), "str(...)"),
    (lambda: np.datetime64("NaT", "s"), "str(...)"),
    (lambda: np.timedelta64(5, "s"), "seconds as a number"),
    (lambda: np.array(["2025-01-02"], dtype="datetime64[ns]"), "str(...)"),
    (lambda: np.array([(1, "2025-01-02")], dtype=ROW), "str(...)"),
    (lambda: np.array([(1, "2025-01-02")], dtype=ROW)[0], "str(...)"),
    (lambda: np.zeros(2, dtype=[("rows", ROW, (2,))]), "str(...)"),
    (lambda: np.zeros(2, dtype=[("a", "m8[ns]")]), "seconds as a number"),
    (lambda: np.float32("nan"), "leave it out"),
    (lambda: np.float64("nan"), "leave it out"),
    (lambda: np.array([1.0, np.nan]), "leave it out"),
    (lambda: np.array([1j]), "float or a string"),
    (lambda: np.longdouble(1), "cannot be sent"),
    (lambda: np.array(b"abc"), "cannot be sent"),
    (lambda: pd.NaT, "missing value"),
    (lambda: pd.NA, "missing value"),
    (lambda: pd.Series([1.0, None]), "leave it out"),
    (lambda: pd.Series(pd.to_datetime(["2025-01-02", None])), "str(...)"),
    (lambda: pd.Series([pd.Timestamp("2025-01-02"), pd.NaT], dtype=object), "missing value"),
    (lambda: pd.DataFrame({"a": [1]}), 'to_dict("records")'),
    (lambda: pd.Timedelta("1s"), "total_seconds()"),
    (lambda: pd.Period("2025-01"), "str(...)"),
    (lambda: pl.DataFrame({"a": [1]}), "to_dicts()"),
    (lambda: pl.LazyFrame({"a": [1]}), "collect()"),
    (lambda: pl.Series([1]), "to_list()"),
    (lambda: iter([b"one", b"chunk"]), 'b"".join(...)'),
    (lambda: (chunk for chunk in [b"one", b"chunk"]), 'b"".join(...)'),
    (itertools.count, "yields more than"),
    (lambda: types.SimpleNamespace(a=1), "vars(...)"),
    (lambda: zipfile.ZipFile(io.BytesIO(b"PK\x05\x06" + bytes(18))), "its open(name)"),
    (lambda: tarfile.TarFile(fileobj=io.BytesIO(bytes(1024))), "its extractfile(name)"),
    (lambda: fsspec.filesystem("memory"), "pass one of them"),
    (lambda: httpx.Request("POST", "https://example.com", content=b"x"), "it is a request"),
    (lambda: ctypes.create_string_buffer(b"abc"), "bytes(...)"),
    (object, "an object cannot be sent"),
    (lambda: float("nan"), "leave it out"),
    (lambda: float("inf"), "leave it out"),
]


@pytest.mark.parametrize(
    ("make", "said"), REFUSED, ids=[f"{n}-{said}" for n, (_, said) in enumerate(REFUSED)]
)
async def test_refusals(
    client: Client, emulator: Emulator, make: Callable[[], Any], said: str
) -> None:
    """The error names the place and the way out; nothing is sent, no file uploaded, nothing left un-awaited."""
    with pytest.raises((ArgumentError, ArgumentTypeError)) as caught:
        await client.run(HELLO, {"text": "x", "file": b"good", "value": {"deep": [make()]}})
    assert str(caught.value).startswith("input.value.deep[0]")
    assert said in str(caught.value)
    assert emulator.ledger.requests() == []


def test_refusals_of_the_facade(emulator: Emulator) -> None:
    """The facade refuses the same."""
    with SyncClient(emulator.token, base_url=emulator.url) as client:
        for make, said in REFUSED:
            with pytest.raises((ArgumentError, ArgumentTypeError)) as caught:
                client.run(HELLO, {"value": make()})
            assert said in str(caught.value)
    assert emulator.ledger.requests() == []


SENT: list[tuple[Any, Any]] = [
    (UserString("abc"), "abc"),
    (np.int64(5), 5),
    (np.float16(0.5), 0.5),
    (np.str_("a"), "a"),
    (np.array([True]), [True]),
    (np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]), [[1, 2.5]]),
    (pd.Series([1, 2]), [1, 2]),
    (pd.Timestamp("2025-01-02"), "2025-01-02T00:00:00"),
    (pd.Index(["a"]), ["a"]),
    (Settings(width=3).model_dump(mode="json"), {"width": 3}),
    (pl.DataFrame({"a": [1]}).to_dicts(), [{"a": 1}]),
]


@pytest.mark.parametrize(("value", "expected"), SENT)
async def test_what_is_sent(client: Client, emulator: Emulator, value: Any, expected: Any) -> None:
    """What has an equal in JSON is sent as that."""
    await client.predictions.create(HELLO, {"text": "x", "value": value})
    assert emulator.ledger.requests()[-1].json()["input"]["value"] == expected


async def test_what_contains_itself(client: Client, emulator: Emulator) -> None:
    """Only what contains itself is said to; what stands in two places, or lies deep, is not."""
    circle: dict[str, Any] = {"a": [1]}
    circle["a"].append(circle)
    with pytest.raises(ArgumentError, match=r"input\.x\.a\[1\]: .* contains itself"):
        await client.run(HELLO, {"x": circle})
    deep: list[Any] = []
    for _ in range(20_000):
        deep = [deep]
    with pytest.raises(ArgumentError, match="nested too deeply") as caught:
        await client.run(HELLO, {"x": deep})
    assert "itself" not in str(caught.value)
    assert emulator.ledger.requests() == []
    shared = [1, {"a": 2}]
    await client.predictions.create(HELLO, {"text": "x", "value": [shared, shared]})
    assert emulator.ledger.requests()[-1].json()["input"]["value"] == [shared, shared]


async def test_files_are_refused_for_what_they_are(
    client: Client, emulator: Emulator, tmp_path: Path
) -> None:
    """Closed, of text, a directory: each is said of what it is true of."""
    path = tmp_path / "a.txt"
    path.write_text("text")
    with path.open("rb") as closed:
        pass
    with path.open() as text, tempfile.TemporaryDirectory() as directory:
        for file, said in (
            (closed, f"the file is closed; pass pathlib.Path({str(path)!r})"),
            (text, "open it with 'rb'"),
            (io.StringIO("x"), "getvalue()"),
            (Path(directory), "directory"),
            (tmp_path / "missing", "No such file"),
        ):
            with pytest.raises(ArgumentError) as caught:
                await client.run(HELLO, {"text": "x", "file": file})
            assert said in str(caught.value)
    assert emulator.ledger.requests() == []
