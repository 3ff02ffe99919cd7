"""Files that were saved, and can be used as paths."""

from __future__ import annotations

from ._facade import FileOutput

__all__ = ("FileOutput", "SavedFile")


class SavedFile(FileOutput):
    """A `FileOutput` that was saved: it is a path, too, so that `open(output)` and `Path(output)` work.

    A `FileOutput` gets this class when it is saved. Before, it must not be a path: functions such as `PIL.Image.open`
    would open that instead of reading the file.
    """

    __slots__ = ()

    def __fspath__(self) -> str:
        return str(self.path)
