"""Where `bulk_load` finds rows: Arrow, frames, and files that this process reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow

_FORMATS = {".parquet": "parquet", ".arrow": "ipc", ".feather": "ipc", ".csv": "csv"}
_CSV = (".csv", ".csv.gz", ".csv.bz2", ".csv.zst")


@dataclass
class Rows:
    """
    Rows to be read once.

    batches: RecordBatches, or whole Tables. is_text: they come from a format
    without types, in which every value is text or null.
    """

    schema: pyarrow.Schema
    batches: Iterator[Any]
    is_text: bool = False

    def close(self) -> None:
        """Let go of what is not read."""
        close = getattr(self.batches, "close", None)
        if close is not None:
            close()


def open_rows(source: Any) -> Rows:
    """Return the rows of `source`. Raises TypeError, FileNotFoundError, ValueError."""
    import pyarrow.dataset

    if isinstance(source, (str, os.PathLike)):
        return _open_path(os.fspath(source))
    if isinstance(source, pyarrow.Table):
        return Rows(source.schema, iter([source]))
    if isinstance(source, pyarrow.RecordBatch):
        return Rows(source.schema, iter([source]))
    if isinstance(source, pyarrow.RecordBatchReader):
        return Rows(source.schema, iter(source))
    if isinstance(source, pyarrow.dataset.Dataset):
        return Rows(source.schema, source.to_batches())
    if hasattr(source, "__arrow_c_stream__"):
        reader = pyarrow.RecordBatchReader.from_stream(source)
        return Rows(reader.schema, iter(reader))
    raise TypeError(
        f"bulk_load() takes Arrow data, a frame of pandas or Polars, or a path, not a "
        f"{type(source).__name__}. For model instances there is bulk_create()."
    )


def _open_path(path: str) -> Rows:
    import pyarrow.dataset

    filesystem, files = _found(path)
    if not files:
        raise FileNotFoundError(f"There is no file at {path!r}.")
    kind = _kind_of(files[0])
    others = [name for name in files if _kind_of(name) != kind]
    if others:
        raise ValueError(
            f"{path!r} finds files of several formats, such as {files[0]!r} and {others[0]!r}. "
            f"Load them one after the other."
        )
    if kind == "csv":
        return _open_csv(filesystem, files)
    dataset = pyarrow.dataset.dataset(
        files, format=kind, filesystem=filesystem, partitioning="hive"
    )
    return Rows(dataset.schema, dataset.to_batches())


def _kind_of(name: str) -> str:
    lower = name.lower()
    if lower.endswith(_CSV):
        return "csv"
    kind = _FORMATS.get(Path(lower).suffix)
    if kind is None:
        raise ValueError(
            f"{name!r} is no file that bulk_load() reads. It reads {', '.join(_FORMATS)}; open "
            f"other ones with pyarrow and pass what you get."
        )
    return kind


def _found(path: str) -> tuple[Any, list[str]]:
    """Return the filesystem, None for this machine's own, and the files there."""
    if "://" in path:
        return _found_at_address(path)
    if has_magic(path) and not Path(path).exists():
        return None, sorted(name for name in glob(path, recursive=True) if Path(name).is_file())
    if Path(path).is_dir():
        return None, sorted(map(str, Path(path).rglob("*.parquet")))
    return None, [path] if Path(path).exists() else []


def _found_at_address(path: str) -> tuple[Any, list[str]]:
    from pyarrow import fs

    head = path.partition("*")[0]
    base = head if head == path else head.rpartition("/")[0]
    filesystem, root = fs.FileSystem.from_uri(base)
    pattern = root + path[len(base) :]
    info = filesystem.get_file_info(root)
    if info.is_file:
        return filesystem, [root]
    listed = filesystem.get_file_info(fs.FileSelector(root, recursive=True, allow_not_found=True))
    names = sorted(each.path for each in listed if each.is_file)
    if head == path:
        return filesystem, [name for name in names if name.endswith(".parquet")]
    whole = PurePosixPath("/", pattern)
    return filesystem, [name for name in names if PurePosixPath("/", name).match(str(whole))]


def _open_csv(filesystem: Any, files: list[str]) -> Rows:
    """Read every value as text, so that DuckDB's types decide, not the looks of the first rows."""
    schema = _text_schema(filesystem, files[0])

    def batches() -> Iterator[Any]:
        for name in files:
            if _text_schema(filesystem, name).names != schema.names:
                raise ValueError(f"{name!r} has other columns than {files[0]!r}.")
            with _csv_reader(filesystem, name, schema) as reader:
                yield from reader

    return Rows(schema, batches(), is_text=True)


def _text_schema(filesystem: Any, name: str) -> pyarrow.Schema:
    with _csv_reader(filesystem, name, None) as reader:
        return pyarrow.schema([(each, pyarrow.string()) for each in reader.schema.names])


def _csv_reader(filesystem: Any, name: str, schema: pyarrow.Schema | None) -> Any:
    """An empty cell is NULL, an empty text in quotes is an empty text."""
    from pyarrow import csv

    options = csv.ConvertOptions(
        column_types=schema,
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    parse = csv.ParseOptions(newlines_in_values=True)
    opened = name if filesystem is None else filesystem.open_input_stream(name)
    return csv.open_csv(opened, convert_options=options, parse_options=parse)
