"""Small inventories of other projects, for builds without a network.

Sphinx reads the inventory of a project from its site, to link `datetime.timedelta` to where it is explained. Where
there is no network, it takes these instead. They hold the names that these docs refer to, and no more: a name that
is missing here fails the build, as it does with the real inventory.
"""

from __future__ import annotations

import zlib
from pathlib import Path

_PROJECTS: dict[str, tuple[str, str]] = {
    "python": (
        "https://docs.python.org/3",
        """
        collections.abc.AsyncGenerator py:class library/collections.abc.html#$
        collections.abc.AsyncIterable py:class library/collections.abc.html#$
        collections.abc.AsyncIterator py:class library/collections.abc.html#$
        collections.abc.Awaitable py:class library/collections.abc.html#$
        collections.abc.Callable py:class library/collections.abc.html#$
        collections.abc.Collection py:class library/collections.abc.html#$
        collections.abc.Coroutine py:class library/collections.abc.html#$
        collections.abc.Generator py:class library/collections.abc.html#$
        collections.abc.Iterable py:class library/collections.abc.html#$
        collections.abc.Iterator py:class library/collections.abc.html#$
        collections.abc.Mapping py:class library/collections.abc.html#$
        collections.abc.Sequence py:class library/collections.abc.html#$
        contextlib.AbstractAsyncContextManager py:class library/contextlib.html#$
        contextlib.AbstractContextManager py:class library/contextlib.html#$
        datetime.datetime py:class library/datetime.html#$
        datetime.timedelta py:class library/datetime.html#$
        inspect.Signature py:class library/inspect.html#$
        os.PathLike py:class library/os.html#$
        pathlib.Path py:class library/pathlib.html#$
        ssl.SSLContext py:class library/ssl.html#$
        typing.BinaryIO py:class library/typing.html#$
        """,
    ),
    "aiohttp": (
        "https://docs.aiohttp.org/en/stable",
        """
        aiohttp.ClientSession py:class client_reference.html#$
        aiohttp.TraceConfig py:class tracing_reference.html#$
        aiohttp.web.BaseRequest py:class web_reference.html#$
        aiohttp.web.Request py:class web_reference.html#$
        aiohttp.web.StreamResponse py:class web_reference.html#$
        """,
    ),
    "multidict": (
        "https://multidict.aio-libs.org/en/stable",
        """
        multidict.CIMultiDictProxy py:class multidict/#$
        """,
    ),
    "attrs": ("https://www.attrs.org/en/stable", ""),
    "anyio": ("https://anyio.readthedocs.io/en/stable", ""),
}


EXTERNAL = tuple(
    line.split()[0] for _, names in _PROJECTS.values() for line in names.split("\n") if line.strip()
)
"""The full names of other projects that these docs refer to."""


def write_inventories(directory: Path) -> dict[str, tuple[str, Path]]:
    """Write the inventories, and return address and file of each, by project."""
    directory.mkdir(parents=True, exist_ok=True)
    written: dict[str, tuple[str, Path]] = {}
    for project, (url, names) in _PROJECTS.items():
        file = directory / f"{project}.inv"
        file.write_bytes(_inventory(project, names))
        written[project] = url, file
    return written


def _inventory(project: str, names: str) -> bytes:
    """Return an inventory in the second version of Sphinx's format."""
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n# The remainder of this file is compressed using zlib.\n"
    entries = []
    for line in names.split("\n"):
        if line.strip():
            name, kind, place = line.split()
            entries.append(f"{name} {kind} 1 {place} -\n")
    return head.encode() + zlib.compress("".join(entries).encode())
