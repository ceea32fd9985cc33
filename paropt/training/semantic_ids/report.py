"""What is said of semantic ids: how evenly codes are used, who shares them, what they lose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from paropt.training.registry import Quantiser, loss_of, mean_and_spread, sharing_of, use_of
from paropt.training.semantic_ids.items import ItemVectors
from paropt.training.semantic_ids.neighbours import Neighbours

EVEN = 0.5  # of the codes: what a level's perplexity should reach
CROWDED = 0.2  # of the items that are not the first with their codes: then it is said
FAINT = 0.5  # cosine of the reconstruction below which codes say little of the vector


@dataclass(frozen=True)
class Level:
    """How the training items use a level's codes; see :class:`models.parts.quantising.Use`.

    ``prefixes`` are the values of the feature: different beginnings of so many levels.
    """

    level: int
    codes: int
    perplexity: float
    dead: int
    largest: float
    prefixes: int
    feature: str


@dataclass(frozen=True)
class Report:
    """All that is known of a dataset's semantic ids; ``report.json`` and ``--json`` are this.

    Attributes:
        made: what they were made of, and how.
        items: how many items the dataset has, of which ``trained`` were learned from and
            ``others`` only coded; ``missing`` have no vector and no codes.
        tuples: different tuples of codes among all coded items.
        collisions: the share of coded items that are not the first with their codes.
        doubles: items with exactly the vector of another, which no codes can tell apart.
        most_alike: how many items share the tuple that most do.
        digit_bits: what a digit that tells them apart would take.
        lost: share of the vectors' variance that the codes lose, of ``trained`` and ``others``.
        cosine: between a vector and what its codes stand for, seen from the mean.
        plain_cosine: the same, seen from zero.
        advice: what to do where codes collapse.
    """

    made: Mapping[str, Any]
    items: int
    trained: int
    others: int
    missing: int
    levels: list[Level]
    tuples: int
    collisions: float
    doubles: int
    most_alike: int
    digit_bits: int
    lost: dict[str, float]
    cosine: dict[str, float]
    plain_cosine: dict[str, float]
    seconds: float
    neighbours: list[Neighbours] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measured(
    items: ItemVectors,
    quantiser: Quantiser,
    codes: Tensor,
    made: Mapping[str, Any],
    features: Mapping[str, int],
    neighbours: list[Neighbours],
    seconds: float,
) -> Report:
    """The report of ``codes`` [coded items, levels], the training items' first.

    ``features`` are the names of the features, level by level, and how many values each has.
    """
    n_codes = int(made["codes"])
    n_trained = len(items.trained)
    uses = [use_of(column, n_codes) for column in codes[:n_trained].T]
    levels = [
        Level(number, n_codes, use.perplexity, use.dead, use.largest, prefixes, feature)
        for number, (use, (feature, prefixes)) in enumerate(
            zip(uses, features.items(), strict=True), 1
        )
    ]
    sharing = sharing_of(codes)
    losses = _losses(items, quantiser)
    report = Report(
        made=dict(made),
        items=len(items.vectors),
        trained=n_trained,
        others=len(items.others),
        missing=int(items.vectors.missing.sum()),
        levels=levels,
        tuples=sharing.tuples,
        collisions=sharing.collisions,
        doubles=items.doubles(),
        most_alike=sharing.most,
        digit_bits=math.ceil(math.log2(sharing.most)),
        lost={who: one["lost"] for who, one in losses.items()},
        cosine={who: one["cosine"] for who, one in losses.items()},
        plain_cosine={who: one["plain_cosine"] for who, one in losses.items()},
        seconds=seconds,
        neighbours=neighbours,
    )
    report.advice.extend(advice(report))
    return report


def _losses(items: ItemVectors, quantiser: Quantiser) -> dict[str, dict[str, float]]:
    found = {}
    mean, spread = mean_and_spread(items.vectors, items.trained)
    for who, index in (("trained", items.trained), ("others", items.others)):
        if not len(index):
            continue
        loss = loss_of(quantiser, items.vectors, index, mean)
        found[who] = {
            "lost": float(loss.squared.mean()) / spread,
            "cosine": float(loss.cosine.mean()),
            "plain_cosine": float(loss.plain_cosine.mean()),
        }
    return found


def advice(report: Report) -> list[str]:
    """What to try where codes collapse; nothing where they don't."""
    said = []
    made = report.made
    for level in report.levels:
        if level.perplexity < EVEN * level.codes:
            said.append(
                f"level {level.level} is used like {level.perplexity:,.0f} of its"
                f" {level.codes:,} codes ({level.dead:,} are dead): {_evener(made)}"
            )
    avoidable = report.collisions - report.doubles / (report.trained + report.others)
    if avoidable > CROWDED:
        said.append(
            f"{avoidable:.0%} of the items share their codes with another though their vectors"
            " differ: take more --levels or --codes"
        )
    if report.cosine["trained"] < FAINT:
        longer = made["method"] == "rq-vae"
        more = "train it longer (n_epochs), or" if longer else "--prepare pca if it whitens, or"
        said.append(
            f"a vector and its codes have a cosine of {report.cosine['trained']:.2f}: {more} take"
            " more --levels or --codes"
        )
    return said


def _evener(made: Mapping[str, Any]) -> str:
    if made["method"] == "rq-vae":
        return "try --method rq-kmeans, or a lower learning_rate and more n_epochs"
    if made["prepare"] == "centre":
        return "take fewer --codes, or --prepare pca with 64 --dims or fewer"
    return f"take fewer --codes, or fewer --dims than {made['dims']:,}"
