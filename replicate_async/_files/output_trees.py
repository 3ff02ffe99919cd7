"""Files in outputs: found by their URLs, replaced, and saved.

Models may nest their outputs deeper than Python can recurse: these functions keep their own stacks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

from .. import exceptions
from .._concurrency import gather_limited
from .._http.transport import Transport
from .._http.urls import has_host, host_of, path_of
from .disk import UniqueNames
from .display import Gallery
from .media import guess_type, has_suffix
from .output import SAVED_AT_ONCE, FileOutput

Tree: TypeAlias = list[Any] | dict[Any, Any]

_SPACE: Final = re.compile(r"\s")

_BREAKS: Final = "\t\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
"""White space that no file name has."""

_DELIVERY: Final = "replicate.delivery"
"""Host of Replicate's output files, and of its subdomains."""


def files_in(output: Any) -> Iterator[FileOutput]:
    """Yield the files of an output, in order."""
    stack = [iter([output])]
    while stack:
        for value in stack[-1]:
            if isinstance(value, FileOutput):
                yield value
            elif isinstance(value, (list, dict)):
                stack.append(iter(value if isinstance(value, list) else value.values()))
                break
        else:
            stack.pop()


def replace_files(output: Any, replace: Callable[[FileOutput], Any]) -> Any:
    """Return a copy of an output with its files replaced."""
    root = [output]
    for tree in _copied(root):
        for key, item in _items(tree):
            if isinstance(item, FileOutput):
                tree[key] = replace(item)
    return root[0]


def _copied(root: Tree) -> Iterator[Tree]:
    """Yield a list or dict, and all lists and dicts in it, each of which is first replaced by a copy."""
    stack = [root]
    while stack:
        tree = stack.pop()
        yield tree
        for key, item in _items(tree):
            if isinstance(item, (list, dict)):
                tree[key] = item.copy()
                stack.append(tree[key])


def _items(tree: Tree) -> Iterable[tuple[Any, Any]]:
    return enumerate(tree) if isinstance(tree, list) else tree.items()


def to_output(
    value: Any, transport: Transport | None, *, files: bool, prediction: str | None = None
) -> Any:
    """Return a copy of an output with its file URLs replaced by `FileOutput` objects.

    A string is a file if it is an `https:` or `data:` URL, or an `http:` URL on the host of an `http:` API.
    A list of strings has only files or none: the tokens of a language model stay text.

    Args:
        value: The output, as JSON-like data.
        transport: The transport of the client, for the downloads.
        files: Pass `False` to return the output as it is.
        prediction: ID of its prediction, for messages.
    """
    if not files or value is None:
        return value
    http_host = None if transport is None else transport.http_host
    if isinstance(value, str):
        is_file = is_file_url(value, http_host)
        return FileOutput(value, transport=transport, prediction=prediction) if is_file else value
    root = [value]
    for tree in _copied(root):
        for key in _file_keys(tree, http_host):
            tree[key] = FileOutput(tree[key], transport=transport, prediction=prediction)
        for key, item in _items(tree):
            if isinstance(item, list) and _file_keys(item, http_host):
                tree[key] = Gallery(item)
    return root[0]


def as_gallery(value: Any) -> Any:
    """Return a list of files as a list that a notebook shows as a gallery, and anything else as it is."""
    is_gallery = type(value) is list and any(isinstance(item, FileOutput) for item in value)
    return Gallery(value) if is_gallery else value


def _file_keys(tree: Tree, http_host: str | None) -> list[Any]:
    """Return the indices or keys of the strings that are files."""
    keys = []
    for key, item in _items(tree):
        if isinstance(item, str):
            if is_file_url(item, http_host):
                keys.append(key)
            elif isinstance(tree, list):
                return []
    return keys


def is_file_url(text: str, http_host: str | None) -> bool:
    """Tell whether a string of an output is a file.

    Args:
        text: The string.
        http_host: A host whose `http:` URLs are files, too.
    """
    if text[:1] not in "hHdD":
        return False
    start = text[:8].lower()
    if start == "https://":
        if len(text) == 8:
            return False
    elif start.startswith("data:"):
        if "," not in text:
            return False
    elif not (http_host and start.startswith("http://") and host_of(text) == http_host):
        return False
    return not _SPACE.search(text) or _is_url_with_spaces(text, http_host)


def _is_url_with_spaces(text: str, http_host: str | None) -> bool:
    """Return whether a text with spaces is the URL of a file, and not a sentence that begins with a URL.

    The URL of a file is on one line, its host is that of Replicate's files or its path ends with a file name, and there is
    no other URL in it.
    """
    if any(c in _BREAKS or not (c.isprintable() or c.isspace()) for c in text):
        return False
    if text.count("://") != 1 or not has_host(text):
        return False
    host = host_of(text) or ""
    if host in (http_host, _DELIVERY) or host.endswith(f".{_DELIVERY}"):
        return True
    name = path_of(text).rpartition("/")[2]
    return has_suffix(name) and guess_type(name) is not None


async def save_all(
    output: Any, directory: Path, *, durable: bool, progress: bool = False
) -> list[exceptions.ReplicateException]:
    """Save all files of an output in a directory.

    Returns:
        The errors of the files that could not be saved. They do not stop the others.
    """
    files = list(dict.fromkeys(files_in(output)))
    names = UniqueNames()

    async def save(job: tuple[FileOutput, str]) -> exceptions.ReplicateException | None:
        file, name = job
        try:
            await file._save_in(directory, name, durable=durable, progress=progress)
        except exceptions.ReplicateException as error:
            return error
        return None

    # The names are numbered before the files are saved, so that they show the order of the files.
    jobs = [(file, names.add(file.name)) for file in files]
    failures = await gather_limited(save, jobs, at_once=SAVED_AT_ONCE)
    saved = {file: (file.path, file._stamp) for file in files}
    for file in files_in(output):
        file._saved_at(*saved[file])
    return [failure for failure in failures if failure is not None]
