"""RQ-VAE: an autoencoder whose middle is a few codes (TIGER, arXiv 2305.11065, section 3.1).

It learns from items' vectors and judges itself by items that it has not learned from. ``paropt
semantic-ids`` trains it and adds the codes to a dataset.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.parts.contract import (
    Catalogue,
    Facts,
    Metric,
    Model,
    Needs,
    Param,
    SequenceBatch,
    Vectors,
)
from models.parts.quantising.floors import quantising_floors
from models.parts.quantising.held_out import split_items
from models.parts.quantising.preparation import (
    HOWS,
    How,
    Preparation,
    fit_preparation,
    prepared_dims,
)
from models.parts.quantising.prepared import PreparedItems, judged, prepared_items
from models.parts.quantising.residual import fit_books, residual_codes, summed
from models.parts.quantising.threads import one_thread

LOOKED_AT = 64  # items per code that codebooks are begun with
TIGER = "TIGER"


class RqVae(Model):
    """Encoder, residual codes, decoder.

    z = encoder(x); r₁ = z; c_l = argmin ‖r_l − e_{l,c}‖², r_{l+1} = r_l − e_{l,c_l}; ẑ = Σ e. The
    decoder gets z + sg(ẑ − z), and the loss is
    ‖x − x̂‖² + Σ_l (‖sg r_l − e‖² + β ‖r_l − sg e‖²), with x scaled to variance 1 per direction on
    average. Codebooks begin as residual k-means of what the encoder gives at first. A code that no
    item had in an epoch begins anew at what some item has left on its level.
    """

    PLAN = "items"
    PARAMS = (
        Param("vectors", "str", "vector", "the items' vectors, a feature", pattern=".+"),
        Param("prepare", "str", "pca", "what is done to vectors first", choices=HOWS),
        Param("dims", "int", 64, "directions that pca and whiten keep; 0: all", low=0, high=65536),
        Param("levels", "int", 3, "codes of an item", low=1, high=8, source=TIGER),
        Param("codes", "int", 256, "different codes per level", low=2, high=65536, source=TIGER),
        Param("latent", "int", 32, "numbers that are coded", low=1, high=4096, source=TIGER),
        Param("hidden", "sizes", (512, 256, 128), "layers of the encoder; the decoder's are these"
              " backwards", low=1, high=16384, source=TIGER),
        Param("beta", "float", 0.25, "weight of what draws z to its codes", low=0, source=TIGER),
        Param("kmeans_init", "bool", True, "codebooks begin as residual k-means"),
        Param("restart", "bool", True, "codes that nothing had in an epoch begin anew"),
        Param("held_out", "float", 0.1, "share of items that are judged by, not learned from",
              low=0, high=0.9),
        Param("collision_limit", "float", 0.15, "share of items that may have the codes of another",
              low=0, high=1),
        Param("batch_size", "int", 1024, "items of a batch", low=1, source=TIGER),
        Param("learning_rate", "float", 0.001, "of AdamW", low=0, low_open=True),
        Param("weight_decay", "float", 0.0, "of matrices", low=0),
        Param("warmup", "float", 0.0, "steps of rising rate; below 1: share of all", low=0),
        Param("schedule", "str", "constant", "of the learning rate",
              choices=("constant", "linear", "cosine")),
        Param("grad_clip", "float", 0.0, "largest norm of the gradient; 0: any", low=0),
        Param("n_epochs", "int", 100, "passes over the items", low=1),
        Param("patience", "int", 0, "epochs without a better value; 0: any", low=0),
    )  # fmt: skip
    METRICS = (
        Metric("reconstruction", "minimize", "lost, of codes within the collision limit; else 1 or"
               " more"),
        Metric("lost", "minimize", "share of held-out items' variance that their codes lose"),
        Metric("cosine", "maximize", "between a held-out vector and what its codes stand for"),
        Metric("collisions", "minimize", "share of items that have the codes of one before"),
        Metric("perplexity", "maximize", "of the level that uses its codes least evenly"),
        Metric("dead_codes", "minimize", "share of codes that no item has"),
    )  # fmt: skip

    def __init__(self, params: Mapping[str, Any], catalogue: Catalogue, seed: int) -> None:
        super().__init__(params, catalogue, seed)
        vectors = catalogue.items.vectors(params["vectors"])
        self.trained, self.held_out = split_items(vectors.missing, params["held_out"])
        dims = prepared_dims(vectors.dim, params["prepare"], params["dims"])
        self._register_preparation(vectors.dim, dims)
        self.items: PreparedItems | None = None
        if vectors.present and len(self.trained):
            self._prepare(vectors)
        drawn = torch.Generator().manual_seed(seed)
        sizes = [dims, *params["hidden"], params["latent"]]
        self.encoder = _layers(sizes, drawn)
        self.decoder = _layers(sizes[::-1], drawn)
        shape = (params["levels"], params["codes"], params["latent"])
        self.books = nn.Parameter(torch.randn(shape, generator=drawn) / params["latent"] ** 0.5)
        self.register_buffer("begun", torch.tensor(not params["kmeans_init"]))
        self.register_buffer("used", torch.zeros(shape[:2], dtype=torch.int64))
        self.begun: Tensor
        self.used: Tensor

    @classmethod
    def needs(cls, params: Mapping[str, Any]) -> Needs:
        return Needs(items={params["vectors"]: ("vector",)})

    @classmethod
    def check(cls, params: Mapping[str, Any], facts: Facts | None = None) -> None:
        has = [f.name for f in facts.items.values() if f.kind == "vector"] if facts else []
        if has and params["vectors"] not in has:
            raise ValueError(
                f"vectors {params['vectors']!r} is none of the items' vectors; they are"
                f" {', '.join(has)}"
            )

    # -- what is learned from ----------------------------------------------------------------

    def _register_preparation(self, dim: int, dims: int) -> None:
        whole = torch.float64
        self.register_buffer("mean", torch.zeros(dim, dtype=whole))
        self.register_buffer("basis", torch.zeros(dim, dims, dtype=whole))
        self.register_buffer("scale", torch.ones(dims, dtype=whole))
        self.mean: Tensor
        self.basis: Tensor
        self.scale: Tensor

    def _prepare(self, vectors: Vectors) -> None:
        """Fit the preparation to the items that are learned from, and prepare all."""
        how = cast(How, self.params["prepare"])
        with one_thread():
            fitted = fit_preparation(vectors, self.trained, how, int(self.params["dims"]))
            items = prepared_items(fitted, vectors)
            learned = items.prepared[items.place[self.trained]].double()
            length = float(learned.square().sum(1).mean()) ** 0.5
        factor = fitted.dims**0.5 / length if length else 1.0
        self.mean, self.basis, self.scale = fitted.mean, fitted.basis, fitted.scale * factor
        self.items = replace(items, prepared=items.prepared * factor)

    @property
    def preparation(self) -> Preparation:
        """What vectors are prepared by."""
        return Preparation(self.mean, self.basis, self.scale)

    def training_items(self) -> Tensor:
        return self.trained if self.items is not None else self.trained[:0]

    def _known(self) -> PreparedItems:
        """The prepared items, on the model's device."""
        if self.items is None:
            raise RuntimeError("no item has a vector")
        if self.items.place.device != self.device:
            self.items = self.items.to(self.device)
        return self.items

    def _prepared(self, items: Tensor) -> Tensor:
        known = self._known()
        rows: Tensor = known.prepared[known.place[items]]
        return rows

    # -- training ----------------------------------------------------------------------------

    def item_loss(self, items: Tensor) -> Tensor:
        if not self.begun:
            self._begin()
        x = self._prepared(items)
        z: Tensor = self.encoder(x)
        codes = residual_codes(z.detach(), self.books.detach())
        coding, quantised = z.new_zeros(()), torch.zeros_like(z)
        for level, chosen in enumerate(codes.T):
            code, left = self.books[level, chosen], z - quantised
            coding = coding + _squared(left.detach(), code)
            coding = coding + self.params["beta"] * _squared(left, code.detach())
            quantised = quantised + code.detach()
            self.used[level] += torch.bincount(chosen, minlength=self.used.shape[1])
        decoded: Tensor = self.decoder(z + (quantised - z).detach())
        return _squared(x, decoded) + coding

    @torch.no_grad()
    def _begin(self) -> None:
        """Codebooks as residual k-means of what the encoder gives for a large batch."""
        latent = self.encoder(self._prepared(self._some(0, LOOKED_AT * self.used.shape[1])))
        levels, codes = self.used.shape
        with one_thread():
            books = fit_books(latent.float().cpu(), levels, codes, self.seed)
        self.books.copy_(books)
        self.begun.fill_(True)

    def _some(self, epoch: int, most: int) -> Tensor:
        """At most so many of the items that are learned from, others in every epoch."""
        draw = torch.Generator().manual_seed((self.seed << 20) + epoch)
        order = torch.randperm(len(self.trained), generator=draw)[:most]
        return self.trained[order].to(self.books.device)

    @torch.no_grad()
    def end_epoch(self, epoch: int) -> dict[str, Any]:
        dead = self.used == 0
        shares = self.used.double() / self.used.sum(1, keepdim=True).clamp(min=1)
        perplexity = torch.special.entr(shares).sum(1).exp()
        self.used.zero_()
        if self.params["restart"] and epoch < self.params["n_epochs"] and bool(dead.any()):
            self._restart(dead, epoch)
        return {"perplexity": perplexity.tolist(), "dead_codes": dead.sum(1).tolist()}

    def _restart(self, dead: Tensor, epoch: int) -> None:
        """Codes that nothing had [levels, codes] begin at what random items have left there."""
        left = self.encoder(self._prepared(self._some(epoch, int(dead.sum(1).max()))))
        for level, book in enumerate(self.books):
            those = dead[level].nonzero()[:, 0][: len(left)]
            book[those] = left[: len(those)]
            left = left - book[residual_codes(left, book[None])[:, 0]]

    # -- codes -------------------------------------------------------------------------------

    @torch.no_grad()
    def codes(self, vectors: Tensor) -> Tensor:
        """Codes [m, levels] int64 of vectors [m, dim], on one thread."""
        with one_thread():
            prepared = self.preparation.apply(vectors.to(self.device)).float()
            return self._coded(prepared).cpu()

    @torch.no_grad()
    def rebuilt(self, codes: Tensor) -> Tensor:
        """The vectors [m, dim] float64 that codes [m, levels] stand for, on one thread."""
        with one_thread():
            latent = summed(codes.to(self.device), self.books)
            return self.preparation.back(self.decoder(latent)).cpu()

    def _coded(self, prepared: Tensor) -> Tensor:
        parts = [residual_codes(self.encoder(part), self.books) for part in prepared.split(4096)]
        return torch.cat(parts)

    # -- judging -----------------------------------------------------------------------------

    def evaluate(self, batches: Iterable[SequenceBatch]) -> Mapping[str, float | Tensor]:
        known, limit = self._known(), float(self.params["collision_limit"])
        with one_thread():
            codes = self._coded(known.prepared)
            rebuilt = self.decoder(summed(codes, self.books))
        asked = self.held_out if len(self.held_out) else self.trained
        return judged(known, self.scale, rebuilt, codes, asked, self.used.shape[1], limit)

    @classmethod
    def floors_with(
        cls, params: Mapping[str, Any], catalogue: Catalogue, batches: Iterable[SequenceBatch]
    ) -> Mapping[str, Mapping[str, float | Tensor]]:
        """Residual k-means of as many levels and codes, and the mean of all vectors."""
        return quantising_floors(params, catalogue.items.vectors(params["vectors"]))

    # -- saving ------------------------------------------------------------------------------

    def worked_out(self) -> dict[str, Tensor]:
        return self.items.tensors() if self.items is not None else {}

    def load_worked_out(self, tensors: Mapping[str, Tensor]) -> None:
        self.items = PreparedItems(**tensors) if tensors else None


def _layers(sizes: list[int], drawn: torch.Generator) -> nn.Sequential:
    """Linear layers with ReLU between them, none at the end."""
    layers: list[nn.Module] = []
    for wide, narrow in itertools.pairwise(sizes):
        layer = nn.Linear(wide, narrow)
        bound = wide**-0.5
        with torch.no_grad():
            layer.weight.uniform_(-bound, bound, generator=drawn)
            layer.bias.uniform_(-bound, bound, generator=drawn)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _squared(one: Tensor, other: Tensor) -> Tensor:
    """The squared distance of rows, a mean."""
    return F.mse_loss(one, other) * one.shape[1]


MODEL = RqVae
