"""
Models over Parquet and CSV files, on this machine or on object storage.

    class Trip(FileModel):
        trip_id = models.BigIntegerField(primary_key=True)
        city = models.CharField(max_length=40)
        fare = models.DecimalField(max_digits=8, decimal_places=2)

        source = Parquet(BASE_DIR / "lake" / "trips" / "*" / "*.parquet")

    Trip.objects.using("analytics").filter(city="Funchal").aggregate(Avg("fare"))

DuckDB reads the files when it is asked, and of them only the columns, row
groups and partitions that the query needs. They can be joined with tables.
Nothing is written: `save()` and the like raise ReadOnlyTable. The database's
OPTIONS["external"] must name the folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from django.core import checks
from django.core.management.commands.inspectdb import Command as InspectDB
from django.db import connections, models
from django.db.models.base import ModelBase
from django.db.models.sql.datastructures import BaseTable, Join

from ...errors import ConfigurationError, ReadOnlyTable
from . import fields
from .access import access_of
from .expressions import refuse_elsewhere
from .inspected import field_code
from .querysets import DuckDBQuerySet

__all__ = ["CSV", "FileModel", "Parquet", "model_source"]

PathLike = str | os.PathLike[str]
_ADDRESS = re.compile(r"\w+://")
_EXTENSIONS = dict.fromkeys(
    ("s3", "s3a", "s3n", "gcs", "gs", "r2", "http", "https", "hf"), "httpfs"
)
"""The extension that reads addresses of a scheme."""


@dataclass(frozen=True)
class _Files:
    """
    Where rows lie.

    path: of a file, a pattern with `*` and `**`, or several of them; absolute
        or an address, else relative to the working directory.
    hive_partitioning: folders called `country=PT` are a column `country`.
    union_by_name: files may have other columns, or in another order; what a
        file lacks is NULL. filename: each row's file is its column `filename`.
    """

    path: PathLike | Sequence[PathLike]
    hive_partitioning: bool = False
    union_by_name: bool = False
    filename: bool = False

    function: ClassVar[str]

    def paths(self) -> list[str]:
        """Return the paths as DuckDB takes them: absolute, for another process may read them."""
        given = [self.path] if isinstance(self.path, (str, os.PathLike)) else self.path
        texts = [os.fspath(each) for each in given]
        return [text if _ADDRESS.match(text) else str(Path(text).absolute()) for text in texts]

    def options(self) -> dict[str, Any]:
        """Return the reader's options that differ from DuckDB's own."""
        names = ("hive_partitioning", "union_by_name", "filename")
        return {name: True for name in names if getattr(self, name)}

    def sql(self) -> tuple[str, list[Any]]:
        """Return the call of DuckDB's reader and its parameters."""
        named = self.options()
        marks = ["%s", *(f"{name} = %s" for name in named)]
        return f"{self.function}({', '.join(marks)})", [self.paths(), *named.values()]


@dataclass(frozen=True)
class Parquet(_Files):
    """
    Parquet files.

    row_number: each row's number in its file is its column `file_row_number`;
        with `filename` it makes a key for files that have none.
    """

    row_number: bool = False

    function: ClassVar[str] = "read_parquet"

    def options(self) -> dict[str, Any]:
        """Return the reader's options that differ from DuckDB's own."""
        numbered = {"file_row_number": True} if self.row_number else {}
        return {**super().options(), **numbered}


@dataclass(frozen=True)
class CSV(_Files):
    """
    CSV files; what is not said is found out by DuckDB from the first rows.

    types: DuckDB's types by column, such as {"zip": "VARCHAR"}.
    """

    delimiter: str | None = None
    header: bool | None = None
    types: dict[str, str] | None = None

    function: ClassVar[str] = "read_csv"

    def options(self) -> dict[str, Any]:
        """Return the reader's options that differ from DuckDB's own."""
        said = {"delim": self.delimiter, "header": self.header, "types": self.types}
        return {**super().options(), **{k: v for k, v in said.items() if v is not None}}


_sources: dict[str, tuple[str, _Files]] = {}
"""Table name to the model's label and its files."""


class FileQuerySet(DuckDBQuerySet):
    """Reads; every method that would write raises ReadOnlyTable."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse_write(self.model)

    update = delete = bulk_create = bulk_update = _refuse
    _insert = _update = _raw_delete = _refuse


class _FileModelBase(ModelBase):
    """Makes the model one that no migration touches and only DuckDB has."""

    def __new__(
        cls, name: str, bases: tuple[type, ...], attrs: dict[str, Any], **kwargs: Any
    ) -> Any:
        given = attrs.get("Meta")
        about = {"managed": False, "required_db_vendor": "duckdb"}
        attrs["Meta"] = type("Meta", (given,) if given else (), about)
        model: Any = super().__new__(cls, name, bases, attrs, **kwargs)
        source = getattr(model, "source", None)
        if not model._meta.abstract and isinstance(source, _Files):
            if not hasattr(given, "db_table"):
                # A name no table has: it is how the FROM clause tells files from tables.
                model._meta.db_table = f"{model._meta.db_table} (files)"
            _sources[model._meta.db_table] = (model._meta.label, source)
        return model


class FileModel(models.Model, metaclass=_FileModelBase):
    """A model whose rows lie in files; `source` says which. It wants a primary key of its own."""

    source: ClassVar[Any] = None

    objects = FileQuerySet.as_manager()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Raise ReadOnlyTable."""
        _refuse_write(type(self))

    save_base = save

    def delete(self, *args: Any, **kwargs: Any) -> Any:
        """Raise ReadOnlyTable."""
        _refuse_write(type(self))

    @classmethod
    def check(cls, **kwargs: Any) -> list[checks.CheckMessage]:
        """Check that there is a source, and a key that the files have."""
        found = super().check(**kwargs)
        if not isinstance(cls.source, _Files):
            found.append(
                checks.Error(
                    f"{cls._meta.label} has no source.",
                    hint="Write: source = Parquet('lake/*.parquet')",
                    obj=cls,
                    id="levada.E063",
                )
            )
        if cls._meta.pk.auto_created:
            found.append(
                checks.Error(
                    f"{cls._meta.label} has no primary key that its files know.",
                    hint="Mark a column with primary_key=True; or, over Parquet, write "
                    "Parquet(…, filename=True, row_number=True) and "
                    "pk = models.CompositePrimaryKey('filename', 'file_row_number').",
                    obj=cls,
                    id="levada.E064",
                )
            )
        return found


def _refuse_write(model: type[models.Model]) -> NoReturn:
    raise ReadOnlyTable(
        f"{model._meta.label} reads files, which cannot be written to by the ORM. "
        f"Write files with a queryset's to_parquet(), or load the rows into a table: bulk_load()"
    )


def _as_duckdb(self: Any, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
    """Write a table of the FROM clause; of a FileModel the call of its reader instead."""
    sql, params = self.as_sql(compiler, connection)
    if self.table_name not in _sources:
        return sql, params
    label, files = _sources[self.table_name]
    _check_access(label, files, connection)
    name = connection.ops.quote_name(self.table_name)
    join = "" if self.join_type is None else f"{self.join_type} "
    rest = sql.removeprefix(f"{join}{name}")
    reader, reader_params = files.sql()
    alias = f" {name}" if self.table_alias == self.table_name else ""
    return f"{join}{reader}{alias}{rest}", [*reader_params, *params]


for _class in (BaseTable, Join):
    setattr(_class, "as_duckdb", _as_duckdb)  # noqa: B010 (Django finds it by its name)


def _check_access(what: str, files: _Files, connection: Any) -> None:
    """Raise ConfigurationError for a path that the database's settings do not let it reach."""
    options = f"DATABASES[{connection.alias!r}]['OPTIONS']"
    for path in files.paths():
        extension = _EXTENSIONS.get(path.partition("://")[0] if "://" in path else "")
        if extension and extension not in connection.settings_dict["OPTIONS"].get("extensions", ()):
            raise ConfigurationError(
                f"{what} reads {path}, for which DuckDB needs its extension {extension}. Write "
                f"{options}['extensions'] = [{extension!r}]; or load the files, which needs no "
                f"extension: bulk_load()"
            )
    external = access_of(connection.alias, connection.settings_dict["OPTIONS"]).external
    if external is True:
        return
    for path in files.paths():
        if not any(_lies_in(path, each) for each in external or ()):
            raise ConfigurationError(
                f"{what} reads {path}, which {options}['external'] does not name. "
                f"Add the folder or address there."
            )


def _lies_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


# Writing a model.

_NESTED = ("ListField", "MapField", "StructField")


def model_source(files: Parquet | CSV, name: str, using: str) -> str:
    """
    Return the Python source of a FileModel called `name` for what `files` hold.

    Parquet gets file name and row number as its key. Of CSV the first column
    that differs in each row is the key; ValueError where there is none.
    """
    connection = connections[using]
    refuse_elsewhere("model_source()", connection)
    is_parquet = isinstance(files, Parquet)
    if isinstance(files, Parquet):
        files = Parquet(
            files.path, files.hive_partitioning, files.union_by_name, filename=True, row_number=True
        )
    _check_access(name, files, connection)
    reader, params = files.sql()
    with connection.cursor() as cursor:
        cursor.execute(f"DESCRIBE SELECT * FROM {reader}", params)
        columns = [(row[0], row[1]) for row in cursor.fetchall()]
    key = None if is_parquet else _key_of(connection, files, [name for name, _ in columns])
    used: list[str] = []
    lines = []
    for column, kind in columns:
        attribute, extra, _ = InspectDB().normalize_col_name(column, used, False)
        used.append(attribute)
        about = {"primary_key": True} if column == key else {"null": True}
        if is_parquet and column in ("filename", "file_row_number"):
            about = {}
        lines.append(f"    {attribute} = {_field_source(kind, {**about, **extra})}")
    arguments = [repr(_shown(files.path)), *(f"{k}={v!r}" for k, v in _said(files).items())]
    if is_parquet:
        lines.insert(0, '    pk = models.CompositePrimaryKey("filename", "file_row_number")')
    head = [
        "from django.db import models",
        "",
        *_nested_import(lines),
        f"from levada.stores.duckdb.files import {type(files).__name__}, FileModel",
        "",
        "",
        f"class {name}(FileModel):",
    ]
    return "\n".join(
        [*head, *lines, "", f"    source = {type(files).__name__}({', '.join(arguments)})", ""]
    )


def _field_source(kind: str, arguments: dict[str, Any]) -> str:
    """Return a field of DuckDB's type `kind`; a text field and a remark where Django has none."""
    remark = ""
    try:
        code = field_code(kind).replace(f"{fields.__name__}.", "")
    except KeyError:
        code, remark = "models.TextField()", f"  # {kind}"
    said = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    separator = ", " if said and not code.endswith("()") else ""
    return f"{code[:-1]}{separator}{said}){remark}"


def _nested_import(lines: Sequence[str]) -> list[str]:
    used = [name for name in _NESTED if any(f"{name}(" in line for line in lines)]
    return [f"from {fields.__name__} import {', '.join(used)}"] if used else []


def _shown(path: Any) -> Any:
    several = not isinstance(path, (str, os.PathLike))
    return [os.fspath(each) for each in path] if several else os.fspath(path)


def _said(files: _Files) -> dict[str, Any]:
    names = [name for name in files.__dataclass_fields__ if name not in ("path", "function")]
    return {
        name: getattr(files, name) for name in names if getattr(files, name) not in (False, None)
    }


def _key_of(connection: Any, files: _Files, columns: Sequence[str]) -> str:
    reader, params = files.sql()
    quote = connection.ops.quote_name
    counted = ", ".join(f"count(DISTINCT {quote(name)})".replace("%", "%%") for name in columns)
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*), {counted} FROM {reader}", params)
        rows, *distinct = cursor.fetchone()
    for name, count in zip(columns, distinct, strict=True):
        if count == rows:
            return name
    raise ValueError(
        "The files have no column that differs in each row, and a model wants a key. "
        "Load them into a table instead: bulk_load()"
    )
