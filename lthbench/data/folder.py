"""The content of a data set's folders: one rule, for all readers of image folders, of which files do not belong to
it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lthbench.data.error import DataError
from lthbench.documents import DocumentError, read_bounded

SUFFIXES = frozenset({".jpeg", ".jpg", ".png"})
# Files that file managers, archivers and operating systems leave in folders; in lower case.
CLUTTER = frozenset(
    {
        ".ds_store", "__macosx", "icon\r",  # macOS
        "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information",  # Windows
        "@eadir", "#recycle", "#snapshot",  # Synology
        "lost+found", ".ipynb_checkpoints",
    }
)  # fmt: skip
LARGEST_LIST = 16 << 20  # bytes; Tiny-ImageNet's annotations, the longest list, have 0.4 MiB


def clutter(name: str) -> str | None:
    """The name or pattern by which a file or folder that belongs to no data set is counted; None if it may belong to
    one.

    These are hidden ones (whose name begins with a dot, such as macOS' `._*` beside each file) and those in CLUTTER.
    """
    if name.lower() in CLUTTER:
        return name.strip()
    if name.startswith("."):
        return "._*" if name.startswith("._") else ".*"
    return None


def told(skipped: dict[str, int]) -> str:
    """A description of what was skipped: `7 files and folders that are no part of a data set: 5 ._*, 2 @eaDir`."""
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in sorted(skipped.items()))
    return f"{sum(skipped.values()):,} files and folders that are no part of a data set: {kinds}"


class Folders:
    """Reads the folders of one data set, and counts what it skips in them.

    Attributes:
        skipped: how many files and folders were skipped, by the name or pattern that they have.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.skipped: Counter[str] = Counter()

    def classes(self, folder: Path) -> list[str]:
        """The folders within one, sorted.

        Raises:
            DataError: it cannot be read, holds a link to nothing, or two folders differ in case only.
        """
        found = [entry.name for entry in self._entries(folder) if entry.is_dir()]
        seen: dict[str, str] = {}
        for each in found:
            other = seen.setdefault(each.lower(), each)
            if other != each:
                raise DataError(
                    f"{self.name}: {folder} holds {other} and {each}, which differ in case only; "
                    "put the images of the class into one of them and delete the other"
                )
        return found

    def images(self, folder: Path) -> list[Path]:
        """The images of a folder, and of a folder `images` within it, sorted by name; none where it is not there.

        Raises:
            DataError: a folder cannot be read, an image is not a file, or two have one name but for capitals.
        """
        if not folder.is_dir():
            return []
        found: dict[str, Path] = {}
        places = [folder, folder / "images"] if (folder / "images").is_dir() else [folder]
        for path in (path for place in places for path in self._image_files(place)):
            other = found.setdefault(path.name.lower(), path)
            if other != path:
                raise same_name(self.name, other, path)
        return sorted(found.values(), key=lambda path: path.name)

    def _image_files(self, folder: Path) -> Iterator[Path]:
        for entry in self._entries(folder):
            if os.path.splitext(entry.name)[1].lower() not in SUFFIXES:  # noqa: PTH122 (a million files)
                continue
            if not entry.is_file():
                raise DataError(f"{self.name}: {entry.path} is not a file, and its name is an image's; delete it")
            yield folder / entry.name

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """What is in a folder, sorted by name, without clutter."""
        try:
            with os.scandir(folder) as entries:
                there = sorted(entries, key=lambda entry: entry.name)
            kept = []
            for entry in there:
                if kind := clutter(entry.name):
                    self.skipped[kind] += 1
                    continue
                if entry.is_symlink():
                    entry.stat()  # raises where it leads to nothing, or to itself
                kept.append(entry)
        except OSError as error:
            raise DataError(
                f"{self.name}: {error.filename} cannot be read ({error.strerror}); make it readable, or delete it"
            ) from error
        return kept


def same_name(name: str, one: Path, other: Path) -> DataError:
    """Return the error for two images of data set `name` that may be one."""
    return DataError(f"{name}: {one} and {other} have one name, but for capitals; delete one of them")


def read_list(path: Path) -> list[str]:
    """The lines of a text file in UTF-8, however an editor ended them and whether or not it put a mark in front.

    Raises:
        DataError: it cannot be read, is too large, or is not text in UTF-8.
    """
    try:
        return read_bounded(path, LARGEST_LIST).decode("utf-8-sig").splitlines()
    except DocumentError as error:
        raise DataError(str(error)) from error
    except OSError as error:
        raise DataError(f"{path}: the list cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: the list is not text in UTF-8 ({error.reason}); save it as such") from error
