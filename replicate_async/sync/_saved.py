"""Files that were saved, which are paths."""

from __future__ import annotations

from ._facade import FileOutput

__all__ = ("FileOutput", "SavedFile")


class SavedFile(FileOutput):
    """A `FileOutput` that was saved: it is a path, too, so that `open(output)` and `Path(output)` work.

    A file becomes one when it is saved. Before, it must be none: functions such as `PIL.Image.open` would take
    it for a path instead of reading it.
    """

    __slots__ = ()

    def __fspath__(self) -> str:
        return str(self.path)
