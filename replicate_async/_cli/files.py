"""Which files of this machine inputs may name."""

from __future__ import annotations

from pathlib import Path

import attrs


@attrs.frozen
class Files:
    """The files that `@PATH` may name."""

    is_on: bool = True
    """Whether @ has a meaning at all."""
    directory: Path | None = None
    """The only directory that they may be in, at any depth; None for all directories."""

    def find(self, text: str) -> Path:
        """Return the file at a path.

        With a directory, a relative path begins in the present directory, or else in that directory. Links are
        followed, so that the result is where the file really is.

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
        # Whether there is a file elsewhere is not told.
        raise PermissionError(
            13, f"there is no such file in {str(self.directory)!r} (--files-from)"
        )


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(2, "there is no such file")
    return path
