"""The files on this machine that inputs may refer to."""

from __future__ import annotations

from pathlib import Path

import attrs


@attrs.frozen
class Files:
    """The files that `@PATH` may refer to."""

    is_on: bool = True
    """Whether `@PATH` refers to a file at all."""
    directory: Path | None = None
    """The only directory that they may be in, at any depth; None for all directories."""

    def find(self, text: str) -> Path:
        """Return the file at a path.

        With a directory, a relative path starts in the current directory, or else in that directory. Links are
        resolved.

        Raises:
            OSError: There is no such file.
            PermissionError: It is not in the directory.
        """
        path = Path(text)
        if self.directory is None:
            return _existing(path)
        bound = self.directory.resolve()
        for candidate in (path, bound / path):
            try:
                found = candidate.resolve()
            except RuntimeError:  # links that lead in a circle, up to Python 3.12
                continue
            if found.is_relative_to(bound) and found.is_file():
                return found
        # The message does not reveal whether there is such a file elsewhere.
        raise PermissionError(
            13, f"there is no such file in {str(self.directory)!r} (--files-from)"
        )


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(2, "there is no such file")
    return path
