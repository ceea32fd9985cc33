"""``paropt semantic-ids``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from paropt.cli._study import say
from paropt.cli._training import DIRECTORY, progress
from paropt.errors import ParamError
from paropt.files import is_there

if TYPE_CHECKING:
    from paropt.training.semantic_ids.learn import Method
    from paropt.training.semantic_ids.neighbours import Neighbours
    from paropt.training.semantic_ids.report import Report

PREPARE = ("centre", "pca", "whiten")


@click.command("semantic-ids")
@click.argument("directory", metavar="DIR", type=DIRECTORY)
@click.option("--vectors", required=True, metavar="NAME", help="The vectors: a feature of items.")
@click.option(
    "--method",
    type=click.Choice(["rq-kmeans", "rq-vae"]),
    default="rq-kmeans",
    help="Residual k-means, or a trained autoencoder: the model rqvae.",
)
@click.option(
    "--levels",
    type=click.IntRange(min=1, max=8),
    show_default="3",
    help="Codes that an item gets.",
)
@click.option(
    "--codes", type=click.IntRange(min=2), show_default="256", help="Different codes per level."
)
@click.option(
    "--prepare",
    type=click.Choice(PREPARE),
    show_default="pca",
    help="What is done to the vectors first: centred, projected too, whitened too.",
)
@click.option(
    "--dims",
    type=click.IntRange(min=0),
    show_default="64",
    help="Directions that pca and whiten keep at most; 0: all.",
)
@click.option(
    "--params", metavar="FILE|K=V,…", help="Of rq-vae: a paramfile of rqvae, or parameters."
)
@click.option(
    "--seed", type=int, show_default="the paramfile's, or 42", help="Of all that's random."
)
@click.option("--device", default="cpu", metavar="cpu|cuda|cuda:0", help="Where rq-vae trains.")
@click.option("--name", default="sid", help="The features become NAME_1, NAME_2, …")
@click.option("--overwrite", is_flag=True, help="Replace features that were added by this name.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def semantic_ids(
    directory: Path,
    vectors: str,
    method: Method,
    params: str | None,
    seed: int | None,
    device: str,
    name: str,
    overwrite: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Add codes of items' vectors to a dataset, as features of items.

    \b
    paropt semantic-ids data/shop --vectors title_vector
    paropt semantic-ids data/shop --vectors title_vector --levels 4 --codes 64 --name words
    paropt semantic-ids data/shop --vectors title_vector --method rq-vae --params n_epochs=200

    What is learned is learned from items with events in training; all items with a vector get
    codes. NAME_1 is the first code, NAME_2 the first two as one, and so on. A model that reads
    features of items reads them by these names.
    """
    from paropt.training.semantic_ids.learn import Told
    from paropt.training.semantic_ids.make import SemanticIdsRequest, make_semantic_ids
    from paropt.training.semantics import DEFAULT_SEED

    if params and method != "rq-vae":
        raise ParamError(f"--params are of --method rq-vae, not of {method}")
    given, of_file = _parameters(params)
    given |= {key: value for key, value in values.items() if value is not None}
    chosen = next(s for s in (seed, of_file, DEFAULT_SEED) if s is not None)
    request = SemanticIdsRequest(vectors, method, given, chosen, name, overwrite, device)
    with progress() as (on_epoch, on_progress):
        report = make_semantic_ids(request, directory, Told(say, on_epoch, on_progress))
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=1, ensure_ascii=False))
        return
    _show(report)
    added = ", ".join(f"{level.feature} ({level.prefixes:,} values)" for level in report.levels)
    say(f"added to {directory}: {added}")


def _parameters(params: str | None) -> tuple[dict[str, Any], int | None]:
    """What ``--params`` says, and a paramfile's seed; its epochs are those that were best."""
    from paropt.search.space import shipped
    from paropt.search.space.paramfiles import read_paramfile
    from paropt.training.train_request import parse_params

    if params is None:
        return {}, None
    if "=" in params and not is_there(params):
        return dict(parse_params(params)), None
    path = shipped.find_paramfile(params)
    if path is None:
        raise ParamError(shipped.missing(params, "paramfile"))
    file = read_paramfile(path)
    if file.model != "rqvae":
        raise ParamError(f"{params} is a paramfile of model {file.model!r}, not 'rqvae'")
    epochs = file.provenance.get("epochs")
    chosen = {"n_epochs": epochs} if epochs else {}
    return {**file.params, **chosen}, file.provenance.get("seed")


def _show(report: Report) -> None:
    made = report.made
    click.echo(
        f"{made['method']} of {made['vectors']}, learned from {report.trained:,} items with events"
        f" in training in {report.seconds:,.1f} s"
    )
    click.echo(f"{report.others:,} other items are coded, {report.missing:,} have no vector")
    click.echo("\nlevel  codes  perplexity  dead  largest")
    for level in report.levels:
        click.echo(
            f"{level.level:>5}  {level.codes:>5}  {level.perplexity:>10.1f}  {level.dead:>4}"
            f"  {level.largest:>7.2%}"
        )
    _show_sharing(report)
    click.echo(f"\n{'reconstruction':<14}  variance lost  cosine  cosine from zero")
    for who, lost in report.lost.items():
        click.echo(
            f"{who:<14}  {lost:>13.3f}  {report.cosine[who]:>6.3f}"
            f"  {report.plain_cosine[who]:>16.3f}"
        )
    for one in report.neighbours:
        _show_neighbours(one)
    if report.advice:
        click.echo()
    for line in report.advice:
        click.echo(f"advice: {line}")


def _show_sharing(report: Report) -> None:
    coded = report.trained + report.others
    click.echo(
        f"\n{report.tuples:,} different tuples for {coded:,} items: {report.collisions:.2%} are not"
        f" the first with theirs ({report.doubles / coded:.2%} have the very vector of another)"
    )
    if report.most_alike > 1:
        click.echo(
            f"a digit that tells them apart would count to {report.most_alike:,}"
            f" ({report.digit_bits} bits)"
        )


def _show_neighbours(one: Neighbours) -> None:
    levels = len(one.codes)
    click.echo(f"\n{'-'.join(map(str, one.codes))}  {_named(one.item, one.title)}")
    for near in one.nearest:
        click.echo(f"  {near.shared} of {levels} alike: {_named(near.item, near.title)}")
    if not one.nearest:
        click.echo("  no other item has its first code")


def _named(item: str, title: str | None) -> str:
    return item if title is None else f"{item}  {title}"
