"""``paropt predict``."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import click

from paropt.cli._study import say
from paropt.cli._training import DIRECTORY

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("directory", metavar="MODEL", type=DIRECTORY)
@click.option(
    "--sequences", required=True, type=FILE, metavar="FILE", help="predict_seq.jsonl: whom to ask."
)
@click.option(
    "--candidates",
    required=True,
    type=FILE,
    metavar="FILE",
    help="predict_set.jsonl, or a folder or file of Parquet.",
)
@click.option("--out", required=True, type=FILE, metavar="DIR", help="The directory to make.")
@click.option(
    "--indexer",
    type=FILE,
    metavar="FILE",
    show_default="indexer.pkl beside the candidates",
    help="Which original item has which re-indexed id.",
)
@click.option(
    "--item-vectors",
    multiple=True,
    metavar="NAME=FILE",
    help="Vectors of candidates that training never saw, by original id; repeatable.",
)
@click.option("--numpy-pickles", is_flag=True, help="Read vectors that are pickled numpy arrays.")
@click.option(
    "--want",
    multiple=True,
    metavar="[COLUMN=]VALUE",
    help="What is wanted of the next event, for a model that reads it: 1, a click.",
)
@click.option("--top", type=click.IntRange(min=1), help="Write each user's best as top.jsonl too.")
@click.option("--device", default="cpu", metavar="cpu|cuda|cuda:0", help="Where to run.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def predict(
    directory: Path,
    sequences: Path,
    candidates: Path,
    out: Path,
    indexer: Path | None,
    item_vectors: tuple[str, ...],
    numpy_pickles: bool,
    want: tuple[str, ...],
    top: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Vectors for the ads competition: of users, and of the candidates.

    DIR gets query.fbin and embedding.fbin, whose products are the scores, id.u64bin with the
    candidates' retrieval ids, and users.txt with the users in their order. A candidate that
    training never saw is ranked by its features, if the model reads any, and left out if not.

    \b
    paropt predict model --sequences predict_seq.jsonl --candidates predict_set.jsonl --out answer
    paropt predict model --sequences predict_seq.jsonl --candidates candidate --top 10 --out answer
    """
    from paropt.data.features.vectors import VectorFile

    try:
        vectors = [replace(VectorFile.parse(text), pickled=numpy_pickles) for text in item_vectors]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--item-vectors") from None
    beside = candidates.parent / "indexer.pkl"
    if indexer is None and beside.exists():
        indexer = beside

    from paropt.training.recommending.predicting import Request, predict
    from paropt.training.saved_model.saved import load_model

    request = Request(sequences, candidates, out, indexer, vectors, want, top or 0)
    told = predict(load_model(directory, device), request, say)
    if as_json:
        click.echo(json.dumps(asdict(told) | {"out": str(told.out)}, indent=2))
        return
    click.echo(f"users       {told.users:,}")
    unseen = f", {told.unseen:,} of them never seen in training" if told.unseen else ""
    left_out = f"; {told.left_out:,} left out" if told.left_out else ""
    click.echo(f"candidates  {told.candidates:,}{unseen}{left_out}")
    click.echo(f"written     {told.out}: vectors of {told.dim} dimensions")
