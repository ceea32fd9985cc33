"""What kind of file holds the events: TSV, CSV, blanks, JSON lines, Parquet or a directory of it.

Nothing but the beginning of a file is read here. Whatever cannot be opened twice (a pipe) is
copied to a temporary file first.
"""

from __future__ import annotations

import atexit
import csv
import gzip
import itertools
import re
import shutil
import stat
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet

from paropt.data.reading.json_lines import first_keys
from paropt.errors import DataError

BLANKS = " "  # as a delimiter: any run of blanks and tabs
_HEAD_BYTES = 1 << 16
_TYPED_NAME = re.compile(r"(.+):(token|token_seq|float|float_seq)")
_DELIMITERS = "\t,;|"
# what a file begins with, and what to say of it
_MAGIC = {
    b"PK\x03\x04": "a zip archive or spreadsheet; unpack it, or save it as CSV",
    b"BZh": "compressed with bzip2; use gzip or no compression",
    b"\xfd7zXZ": "compressed with xz; use gzip or no compression",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; use gzip or no compression",
    b"\x89HDF": "an HDF5 file; save its table as Parquet",
    b"ARROW1": "an Arrow (Feather) file; save its table as Parquet",
    b"Obj\x01": "an Avro file; save its table as Parquet",
    b"ORC": "an ORC file; save its table as Parquet",
    b"PARE": "an encrypted Parquet file; save it without encryption",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8",
}
DAMAGED = (OSError, EOFError, zlib.error)
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_PICKLE = re.compile(rb"\x80[\x02-\x05]|\x78[\x01\x5e\x9c\xda]|ZF")
# what came through pipes, for as long as this process lives: they can be read only once
_COPIES: dict[tuple[Path, int], Path] = {}


@dataclass(frozen=True)
class Layout:
    """How a file is written.

    Attributes:
        path: the file, or the directory of a Parquet data set.
        names: its columns.
        delimiter: what separates fields; a blank stands for any run of blanks, an empty text for
            JSON lines and Parquet.
        has_header: the first line that is not blank holds the names.
        gzipped: the file is compressed.
        is_json: it holds one JSON object per line.
        header: the header's fields as they are written.
        spare: how many fields without a name follow the named ones in each row.
        spare_is_empty: no row may have a value in these.
        parts: the files of a directory.
        fixed: columns that the directory's name gives, ``day=3``, with their value.
    """

    path: Path
    names: tuple[str, ...]
    delimiter: str = ""
    has_header: bool = True
    gzipped: bool = False
    is_json: bool = False
    header: tuple[str, ...] = ()
    spare: int = 0
    spare_is_empty: bool = False
    parts: tuple[Layout, ...] = ()
    fixed: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def is_parquet(self) -> bool:
        return not (self.delimiter or self.is_json)

    @property
    def quotes(self) -> bool:
        """CSV has quoted values; in a TSV, by convention, a quote is a character like others."""
        return self.delimiter in (",", ";", "|")

    def split(self, line: str) -> list[str]:
        """A line's fields; without their quotes in CSV."""
        if self.delimiter == BLANKS:
            return line.split()
        if self.quotes:
            return next(csv.reader([line], delimiter=self.delimiter), [])
        return line.split(self.delimiter)


def look_at(path: Path, headless: Sequence[str] = (), delimiter: str = "") -> Layout:
    """A file's layout, from its first bytes; nothing else of it is read.

    ``headless`` names the columns of a format without a header line.

    Raises:
        DataError: the file cannot be read, is empty, is no table, or names a column twice.
    """
    if path.is_dir():
        return _directory(path)
    magic = _looked_into(path)
    if magic.startswith(b"PAR1"):
        return _checked(Layout(path, tuple(open_parquet(path).schema_arrow.names)))
    gzipped = magic.startswith(_GZIP)
    head = _head(path, gzipped)
    if _is_json(head):
        names = first_keys(path, head, len(head) < _HEAD_BYTES)
        return Layout(path, names, gzipped=gzipped, is_json=True)
    lines = [line for line in re.split(rb"[\r\n]+", head, maxsplit=3) if line.strip()][:2]
    first = _decoded(path, lines[0])
    second = lines[1].decode(errors="replace") if len(lines) > 1 else None
    delimiter = delimiter or _delimiter(first, second, headless)
    layout = Layout(path, tuple(headless), delimiter, False, gzipped)
    if headless:
        return _with_spare(layout, len(headless), first)
    return _with_header(layout, first, second)


def peek(path: Path) -> str | None:
    """A delimited file's first line that isn't blank; None for JSON lines and Parquet.

    Raises:
        DataError: the file cannot be read, is empty, or is no table.
    """
    if path.is_dir():
        return None
    magic = _looked_into(path)
    if magic.startswith(b"PAR1"):
        return None
    head = _head(path, magic.startswith(_GZIP))
    if _is_json(head):
        return None
    return _decoded(path, head.lstrip(b"\r\n").splitlines()[0])


def refuse_header(path: Path, names: Sequence[str], option: str) -> None:
    """Refuse a header line where ``option`` names the columns: it would be a row like others.

    Raises:
        DataError: the file's first line is these names, in whatever order.
    """
    first = peek(path)
    if first is None:  # JSON lines and Parquet name their columns themselves
        return
    wanted = sorted(name.strip().lower() for name in names)
    for delimiter in (*_DELIMITERS, "::", BLANKS):
        words = _untyped(_header_of(Layout(path, (), delimiter).split(first)))
        if sorted(word.lower() for word in words) == wanted:
            raise DataError(
                f"{path} begins with a header line of its own, {first.strip()!r}; leave {option}"
                " out, or take that line out of the file"
            )


def on_disk(path: Path) -> Path:
    """The file itself, or the copy of what came through a pipe.

    Raises:
        DataError: it cannot be opened, or is no file.
    """
    try:
        status = path.stat()
        if stat.S_ISREG(status.st_mode):
            return path
        if stat.S_ISFIFO(status.st_mode):
            return _copy(path, status.st_ino)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None
    raise DataError(f"{path} is no regular file; write the events to one first")


def _copy(path: Path, inode: int) -> Path:
    if (path, inode) not in _COPIES:
        handle, name = tempfile.mkstemp(prefix="paropt-")
        atexit.register(Path(name).unlink, missing_ok=True)
        with path.open("rb") as pipe, open(handle, "wb") as copy:
            shutil.copyfileobj(pipe, copy, 1 << 20)
        _COPIES[path, inode] = Path(name)
    return _COPIES[path, inode]


# -- the first bytes ------------------------------------------------------------------------


def _looked_into(path: Path) -> bytes:
    """The first bytes of a file that may be a table."""
    magic = _magic(path)
    if not magic:
        raise DataError(f"{path} is empty")
    _refuse_pickle(path, magic)
    for start, what in _MAGIC.items():
        if magic.startswith(start):
            raise DataError(f"{path} is {what}")
    return magic


def _magic(path: Path) -> bytes:
    try:
        with on_disk(path).open("rb") as file:
            return file.read(8)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from None


def _refuse_pickle(path: Path, magic: bytes) -> None:
    by_name = path.suffix in (".pickle", ".pkl", ".joblib")
    if not (by_name or _PICKLE.match(magic)):
        return
    parquet = path.with_suffix(".parquet").name
    raise DataError(
        f"{path} is a pickle, which paropt never loads because loading runs code; if you trust it:"
        f" python -c \"import joblib; joblib.load('{path}').to_parquet('{parquet}')\""
    )


def _head(path: Path, gzipped: bool) -> bytes:
    """The first lines, without a byte order mark."""
    file_path = on_disk(path)
    try:
        with gzip.open(file_path) if gzipped else file_path.open("rb") as file:
            head: bytes = file.read(_HEAD_BYTES)
    except DAMAGED as error:
        raise damaged(path, error) from None
    if b"\0" in head:
        raise DataError(f"{path} is a binary file, not TSV, CSV, JSON lines or Parquet")
    if not head.strip():
        raise DataError(f"{path} is empty")
    return head.removeprefix(_BOM)


def damaged(path: Path, error: BaseException) -> DataError:
    return DataError(f"{path} is cut short or damaged: {one_line(error)}")


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _is_json(head: bytes) -> bool:
    return head.lstrip().startswith((b"{", b"["))


def _decoded(path: Path, line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise DataError(f"{path}:1: the header is not UTF-8 text") from None


def _delimiter(first: str, second: str | None, headless: Sequence[str]) -> str:
    """What occurs most often; blanks where nothing else does, or where only they fit the rows."""
    best = max(_DELIMITERS, key=lambda d: (first.count(d), d == ","))
    by_blanks = len(first.split())
    if headless and first.count(best) + 1 != len(headless) == by_blanks:
        return BLANKS
    if best not in first and by_blanks > 1:
        return BLANKS
    # a header of blanks and tabs, as is the row below it
    if best == "\t" and second is not None and first.count("\t") + 1 < by_blanks:
        same = second.count("\t") == first.count("\t")
        return best if same or len(second.split()) != by_blanks else BLANKS
    return best


# -- names ----------------------------------------------------------------------------------


def _with_header(layout: Layout, first: str, second: str | None) -> Layout:
    fields = layout.split(first)
    if layout.quotes and first.count('"') % 2:
        raise DataError(f"{layout.path}:1: the header has a quote that is not closed")
    names = _header_of(fields)
    layout = replace(layout, names=tuple(_untyped(names)), header=tuple(names), has_header=True)
    return _checked(_with_spare(layout, len(fields), second))


def _header_of(fields: Sequence[str]) -> list[str]:
    """The words of a header line, without what follows the last of them."""
    names = [_unquoted(name).strip() for name in fields]
    while len(names) > 1 and not names[-1]:
        names.pop()
    return names


def _untyped(names: list[str]) -> list[str]:
    """Names without RecBole's types, if all have one."""
    typed = [_TYPED_NAME.fullmatch(name) for name in names]
    return [match[1] for match in typed if match] if all(typed) else names


def _unquoted(name: str) -> str:
    """A name of a TSV's header without its quotes; those of a CSV are gone already."""
    quoted = re.fullmatch(r'\s*"((?:[^"]|"")*)"\s*', name)
    return quoted[1].replace('""', '"') if quoted else name


def _with_spare(layout: Layout, n_header: int, row: str | None) -> Layout:
    """Account for fields without a name at a row's end, as programs write that end in a comma."""
    n_names = len(layout.names)
    fields = [""] * n_header if row is None else layout.split(row)
    if len(fields) == n_names or not n_names:
        return layout
    if len(fields) == n_header:
        return replace(layout, spare=n_header - n_names)
    spare = len(fields) - n_names
    if spare > 0 and not any(value.strip() for value in fields[n_names:]):
        return replace(layout, spare=spare, spare_is_empty=True)
    return replace(layout, spare=n_header - n_names)


def _checked(layout: Layout) -> Layout:
    twice = sorted({name for name in layout.names if name and layout.names.count(name) > 1})
    if twice:
        line = "" if layout.is_parquet else ":1"
        what = f"{layout.path}{line}: the header names column {twice[0]!r} twice"
        if re.fullmatch(r"[-+.\d]+", twice[0]):
            what += "; if there is no header line, name the columns with --header"
        raise DataError(what)
    return layout


# -- Parquet --------------------------------------------------------------------------------


def open_parquet(path: Path) -> pa.parquet.ParquetFile:
    """A Parquet file, its metadata read.

    Raises:
        DataError: it is cut short or damaged.
    """
    try:
        return pa.parquet.ParquetFile(on_disk(path), memory_map=True)
    except (pa.ArrowException, OSError, ValueError) as error:  # pandas' types read JSON in it
        raise DataError(
            f"{path} is a Parquet file cut short or damaged: {one_line(error)}"
        ) from None


# what a table format keeps beside its files -> its name
_VERSIONED = {
    "_delta_log": "Delta Lake",
    ".hoodie": "Apache Hudi",
    "metadata/*.metadata.json": "Apache Iceberg",
}


def _directory(path: Path) -> Layout:
    """A data set of Parquet files; directories named ``column=value`` give a column (Hive)."""
    if (path / "meta.json").is_file():
        what = "a dataset that paropt prepare made, not a log"
        raise DataError(f"{path} is {what}; give it as --data, or prepare its log again")
    for own, whose in _VERSIONED.items():
        if any(path.glob(own)):
            raise DataError(
                f"{path} is a table of {whose}, with files of versions that are gone; write its"
                " current rows to Parquet files, and give those"
            )
    files = sorted(_files(path), key=lambda file: _natural(file.relative_to(path).as_posix()))
    parts = tuple(_part(path, file) for file in files)
    if not parts:
        raise DataError(f"{path} is a directory without Parquet files; give files of events")
    in_all = set(parts[0].names).intersection(*(part.names for part in parts[1:]))
    return Layout(path, tuple(name for name in parts[0].names if name in in_all), parts=parts)


def _files(path: Path) -> list[Path]:
    """The files of a data set; what begins with a dot or an underscore is its writer's own."""
    found = [
        file
        for file in path.rglob("*")
        if file.is_file()
        and not any(name.startswith((".", "_")) for name in file.relative_to(path).parts)
    ]
    if any(_magic(file).startswith(b"PAR1") for file in found):
        return found
    return []


def is_parquet_directory(path: Path) -> bool:
    """Whether a directory holds Parquet files, and so may be a log; a thousand are looked at."""
    files = (file for file in path.rglob("*") if file.is_file())
    return any(_magic(file).startswith(b"PAR1") for file in itertools.islice(files, 1000))


def files_of(path: Path) -> list[Path]:
    """A file, or the files of a directory in their order."""
    return [part.path for part in look_at(path).parts] if path.is_dir() else [path]


def _natural(name: str) -> list[tuple[str, int]]:
    """So that ``part.10`` follows ``part.9``."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]


def _part(root: Path, file: Path) -> Layout:
    if not _magic(file).startswith(b"PAR1"):
        raise DataError(f"{file} is no Parquet file, as others in {root} are; take it out")
    layout = look_at(file)
    keys = [name.partition("=") for name in file.relative_to(root).parts[:-1] if "=" in name]
    fixed = {
        unquote(key): None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)
        for key, _, value in keys
        if unquote(key) not in layout.names
    }
    return replace(layout, names=(*layout.names, *fixed), fixed=fixed)
