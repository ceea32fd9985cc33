"""What lies in a directory of the ads competition: which of its two layouts, and which files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from paropt.errors import DataError

# emb_81_32.pkl, emb_82_1024/, emb_81_32_parquet/
_VECTORS = re.compile(r"(emb_(\d+)_(\d+))(?:_parquet)?(?:\.pkl|\.parquet|\.jsonl|\.json)?")


@dataclass(frozen=True)
class VectorFiles:
    """Vectors of items under their number: ``emb_81_32`` has the number 81 and 32 dimensions."""

    name: str
    number: int
    dim: int
    path: Path


@dataclass(frozen=True)
class Directory:
    """The files of a layout; None where one is not there.

    ``parquet``: it is the public release; else the competition's, of JSON lines.
    """

    path: Path
    parquet: bool
    sequences: Path
    indexer: Path | None
    items: Path | None
    users: Path | None
    candidates: Path | None
    vectors: Mapping[int, VectorFiles] = field(default_factory=dict)


def is_one(path: Path) -> bool:
    """Whether a directory is unmistakably one of the competition's."""
    return (path / "indexer.pkl").is_file() and (
        (path / "seq.jsonl").is_file() or (path / "seq").is_dir()
    )


def look_into(path: Path) -> Directory:
    """The layout of a directory.

    Raises:
        DataError: it is of neither layout, or of both.
    """
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise DataError(f"{path} {what}; --format tencent-gr takes the competition's directory")
    lines, folder = path / "seq.jsonl", path / "seq"
    zipped = path / "seq.jsonl.gz"
    if zipped.exists() and not lines.exists():
        lines = zipped
    if lines.exists() and folder.is_dir():
        raise DataError(
            f"{path} has both {lines.name} and seq/, which are two layouts of the competition; take"
            " one of them out"
        )
    if not (lines.exists() or folder.is_dir()):
        has = ", ".join(sorted(one.name for one in path.iterdir())[:5]) or "nothing"
        raise DataError(
            f"{path} is of no layout of the ads competition: it needs seq.jsonl, or seq/ of Parquet"
            f" files (it has {has})"
        )

    def there(name: str) -> Path | None:
        return path / name if (path / name).exists() else None

    beside: tuple[Path | None, ...]
    if lines.exists():
        beside = there("item_feat_dict.json"), None, there("predict_set.jsonl")
    else:
        beside = there("item_feat"), there("user_feat"), there("candidate")
    vectors = _vectors(path / ("creative_emb" if lines.exists() else "mm_emb"))
    sequences = lines if lines.exists() else folder
    indexer = there("indexer.pkl")
    return Directory(path, not lines.exists(), sequences, indexer, *beside, vectors)


def _vectors(folder: Path) -> dict[int, VectorFiles]:
    found: dict[int, VectorFiles] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = _VECTORS.fullmatch(path.name)
        if match:
            number = int(match[2])
            if number in found:
                raise DataError(
                    f"{folder} has vectors {number} twice, {found[number].path.name} and"
                    f" {path.name}; take one of them out"
                )
            found[number] = VectorFiles(match[1], number, int(match[3]), path)
    return found
