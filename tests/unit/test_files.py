"""Outputs as trees, names that differ, and files that appear when they are complete."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicate_async import FileOutput
from replicate_async._files.disk import (
    UniqueNames,
    new_file,
    numbered,
    remove_partial_files,
    write_file,
)
from replicate_async._files.output_trees import files_in, replace_files, to_output

URL = "https://a.test/1.png"
LEVELS = 5000
"""More than Python recurses."""


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"deep": inner}])
def test_outputs_of_any_depth(wrap: Callable[[Any], Any]) -> None:
    """A file is found, and replaced, however deep it is in the output."""
    output: Any = URL
    for _ in range(LEVELS):
        output = wrap(output)
    converted = to_output(output, None, files=True)
    assert list(files_in(converted)) == [FileOutput(URL)]
    replaced = replace_files(converted, str)
    assert list(files_in(replaced)) == []
    for _ in range(LEVELS):
        (replaced,) = replaced.values() if isinstance(replaced, dict) else replaced
    assert replaced == URL


trees = st.recursive(
    st.sampled_from([URL, "https://a.test/2.png", "text", 5, None]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=12,
)


def _converted(value: Any) -> Any:
    """Convert an output, by recursion."""
    if isinstance(value, str):
        return FileOutput(value) if value.startswith("https:") else value
    if isinstance(value, list):
        text = any(isinstance(item, str) and not item.startswith("https:") for item in value)
        return [item if text and isinstance(item, str) else _converted(item) for item in value]
    if isinstance(value, dict):
        return {key: _converted(item) for key, item in value.items()}
    return value


def _files(value: Any) -> list[FileOutput]:
    if isinstance(value, FileOutput):
        return [value]
    if isinstance(value, (list, dict)):
        inner = value if isinstance(value, list) else value.values()
        return [file for item in inner for file in _files(item)]
    return []


@given(trees)
def test_trees(output: Any) -> None:
    """Files are found and replaced in order, in a copy; a list with other strings stays as it is."""
    before = repr(output)
    converted = to_output(output, None, files=True)
    assert converted == _converted(output)
    assert list(files_in(converted)) == _files(converted)
    assert replace_files(converted, str) == output
    assert repr(output) == before
    assert converted == _converted(output)


@given(st.lists(st.sampled_from(["a.png", "A.png", "a-2.png", "b", "b-2"]), max_size=30))
def test_unique_names(given: list[str]) -> None:
    """Each name is given once, whatever the case of its letters; a free one stays as it is."""
    names = UniqueNames()
    made = [names.add(name) for name in given]
    assert len({name.lower() for name in made}) == len(given)
    assert made[:1] == given[:1]


def test_many_equal_names() -> None:
    """Names are numbered in order, without end."""
    names = UniqueNames()
    assert [names.add("a.tar.gz") for _ in range(3)] == ["a.tar.gz", "a.tar-2.gz", "a.tar-3.gz"]
    assert [names.add("a.tar.gz") for _ in range(1000)][-1] == "a.tar-1003.gz"


def test_numbered_paths() -> None:
    """Of many, the last ones have numbers that nobody has to search for."""
    paths = numbered(Path("x/a.png"))
    found = [next(paths) for _ in range(120)]
    assert found[:3] == [Path("x/a.png"), Path("x/a-2.png"), Path("x/a-3.png")]
    assert len(set(found)) == 120


async def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    """Before the end of the block there is nothing under the name; after a failure there never is."""
    path = tmp_path / "a.txt"
    await write_file(path, b"old")
    async with new_file(path, replace=True) as file:
        await file.write(b"void")
        await file.clear()
        await file.write(b"new")
        assert path.read_bytes() == b"old"
    assert (file.path, path.read_bytes()) == (path, b"new")
    async with new_file(path, replace=False) as file:
        await file.write(b"other")
    assert (file.path, file.path.read_bytes()) == (tmp_path / "a-2.txt", b"other")

    async def fail() -> None:
        async with new_file(path, replace=True) as file:
            await file.write(b"incomplete")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {
        "a.txt": b"new",
        "a-2.txt": b"other",
    }


async def test_what_a_killed_process_leaves(tmp_path: Path) -> None:
    """Unfinished files are removed when they are old, and nothing else is."""
    old, young, other = (
        tmp_path / name for name in (f".{'a' * 16}.part", f".{'b' * 16}.part", "x")
    )
    for path in (old, young, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (0, 0))
    async with new_file(tmp_path / "y", replace=True):
        (unfinished,) = set(tmp_path.iterdir()) - {old, young, other}
        os.utime(unfinished, (0, 0))
        remove_partial_files(tmp_path)
        assert set(tmp_path.iterdir()) == {young, other}
        unfinished.touch()
    assert set(tmp_path.iterdir()) == {young, other, tmp_path / "y"}
