"""GRU4Rec: recurrent next-item recommendation (arXiv 1511.06939, arXiv 1706.03847).

The parameters have the names of the official implementation, and what it computes is what is
computed here; ``docs/gru4rec.md`` says where it is deliberately left. Training is written by hand,
forward and backward, since a step is too small for autograd's bookkeeping: see :mod:`models.parts`
for the cells, the losses, the optimiser and the negatives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.parts.contract import (
    Catalogue,
    Facts,
    Model,
    Param,
    PlanKind,
    Rows,
    SequenceBatch,
    SessionParallelPlan,
)
from models.parts.gru4rec import activations
from models.parts.gru4rec.activations import Activation
from models.parts.gru4rec.cells import GruCell, RowGruCell, glorot_bound
from models.parts.gru4rec.losses import LOSSES
from models.parts.gru4rec.negatives import Negatives, PopularityNegatives
from models.parts.gru4rec.seeded_random import DropoutMasks, generator
from models.parts.gru4rec.steps import GRAPHS, SOFTMAX_OF, TrainingSteps

PAPER = "arXiv 1706.03847"


class Gru4Rec(Model):
    """GRU4Rec. Ranks by h·Wᵀ + b: the final activations are monotone, so ranks don't need them."""

    PLAN: ClassVar[PlanKind] = "session-parallel"
    PARAMS: ClassVar[tuple[Param, ...]] = (
        Param("loss", "str", "cross-entropy", "what is minimised", choices=tuple(LOSSES),
              source=PAPER),
        Param("final_act", "str", "auto",
              "activation of the scores in training; auto: softmax for cross-entropy, "
              "softmax_logit for xe_logit, elu-0.5 for bpr-max, else linear",
              pattern=rf"auto|softmax|softmax_logit|{activations.PATTERN}", source=PAPER),
        Param("hidden_act", "str", "tanh", "activation of the candidate state",
              pattern=activations.PATTERN),
        Param("layers", "sizes", (100,), "GRU units per layer", low=1),
        Param("n_epochs", "int", 10, "passes over the training sessions", low=1),
        Param("patience", "int", 0, "epochs without a better score that end training; 0: none",
              low=0),
        Param("batch_size", "int", 64, "sessions trained side by side", low=1),
        Param("learning_rate", "float", 0.05, "Adagrad's step size", low=0, low_open=True),
        Param("momentum", "float", 0.0, "heavy-ball momentum", low=0, high=1, high_open=True),
        Param("dropout_p_embed", "float", 0.0,
              "share of the input embedding's values dropped; unused without an embedding",
              low=0, high=1, high_open=True),
        Param("dropout_p_hidden", "float", 0.0, "share of each layer's outputs dropped",
              low=0, high=1, high_open=True),
        Param("n_sample", "int", 2048, "negatives beside those of the batch", low=0, source=PAPER),
        Param("sample_alpha", "float", 0.5,
              "negatives are drawn with probability ∝ support^alpha", low=0, source=PAPER),
        Param("bpreg", "float", 1.0, "regularisation of the negatives' scores in bpr-max", low=0,
              source=PAPER),
        Param("logq", "float", 0.0, "weight of the correction for how often an item is a column",
              low=0, source="Bengio and Senécal 2008"),
        Param("smoothing", "float", 0.0, "label smoothing of cross-entropy and xe_logit",
              low=0, high=1, high_open=True),
        Param("constrained_embedding", "bool", True, "one table for items read and items scored",
              source=PAPER),
        Param("embedding", "str", "0",
              "size of a separate input embedding; layersize: as the first layer; 0: none",
              pattern=r"\d+|layersize"),
        Param("lmbd", "float", 0.0, "weight decay: p shrinks by learning_rate·lmbd a step", low=0),
        Param("grad_cap", "float", 0.0, "cap on a step's global gradient norm; 0: none", low=0),
        Param("sigma", "float", 0.0, "scale of the initial weights; 0: √(6/(rows + columns))",
              low=0, source="Glorot and Bengio 2010"),
        Param("init_as_normal", "bool", False, "initial weights are normal instead of uniform"),
        Param("accelerate", "str", "auto",
              "auto: on a CPU, kernels that this machine's C compiler makes, if it has one; "
              "none: PyTorch alone; "
              "graph: a GPU repeats a recorded step by itself, equal rows summed in a fixed order; "
              "graph-unordered: in any order, so that runs differ in their last bits",
              choices=("auto", "none", *GRAPHS)),
        Param("adapt", "str", "adagrad", "step size rule", choices=("adagrad",)),
        Param("time_sort", "bool", True, "sessions are trained in time order"),
        Param("train_random_order", "bool", False, "sessions are shuffled in every epoch"),
    )  # fmt: skip

    @classmethod
    def check(cls, params: Mapping[str, Any], facts: Facts | None = None) -> None:
        loss, final_act = params["loss"], params["final_act"]
        if final_act not in ("auto", SOFTMAX_OF.get(loss, final_act)):
            raise ValueError(
                f"final_act={final_act} does not go with loss={loss}, "
                f"which needs {SOFTMAX_OF[loss]} (or auto)"
            )
        if final_act in SOFTMAX_OF.values() and loss not in SOFTMAX_OF:
            raise ValueError(
                f"final_act={final_act} does not go with loss={loss}, which compares scores; "
                "use elu-0.5 or linear (or auto)"
            )
        if params["constrained_embedding"] and params["embedding"] != "0":
            raise ValueError(
                f"embedding={params['embedding']} has no place with constrained_embedding=True, "
                "where items are read from the output table; set one of them only"
            )
        if params["smoothing"] and loss not in SOFTMAX_OF:
            raise ValueError(
                f"smoothing={params['smoothing']} is for {' and '.join(SOFTMAX_OF)}, "
                f"not for loss={loss}; set it to 0"
            )
        if params["batch_size"] == 1 and params["n_sample"] == 0:
            raise ValueError("batch_size=1 with n_sample=0 leaves no negatives; raise one of them")
        if params["train_random_order"] or not params["time_sort"]:
            raise ValueError(
                f"train_random_order={params['train_random_order']} and "
                f"time_sort={params['time_sort']} ask for another order of sessions, but they are "
                "trained in time order; leave both at their defaults"
            )

    def __init__(self, params: Mapping[str, Any], catalogue: Catalogue, seed: int) -> None:
        super().__init__(params, catalogue, seed)
        layers: tuple[int, ...] = params["layers"]
        n_items = catalogue.n_items
        fill = self._initialiser(generator(torch.device("cpu"), seed, "weights"))
        hidden_act = Activation.named(params["hidden_act"])
        self.embedding: nn.Parameter | None = None
        cells: list[GruCell | RowGruCell] = []
        n_in = layers[-1]
        if not params["constrained_embedding"] and params["embedding"] == "0":
            self.embedding = nn.Parameter(torch.empty(n_items, 3 * layers[0]))
            for block in self.embedding.detach().chunk(3, 1):
                fill(block)
            cells.append(RowGruCell(layers[0], hidden_act, fill))
            n_in = layers[0]
        elif not params["constrained_embedding"]:
            size = params["embedding"]
            n_in = layers[0] if size == "layersize" else int(size)
            self.embedding = nn.Parameter(torch.empty(n_items, n_in))
            fill(self.embedding.detach())
        for size in layers[len(cells) :]:
            cells.append(GruCell(n_in, size, hidden_act, fill))
            n_in = size
        self.cells = nn.ModuleList(cells)
        self.output = nn.Parameter(torch.empty(n_items, layers[-1]))
        self.bias = nn.Parameter(torch.zeros(n_items))
        fill(self.output.detach())
        self.negatives: Negatives = PopularityNegatives(
            catalogue.support, params["sample_alpha"], params["n_sample"], seed
        )
        # the rows of an item table that a cell adds to its gates are no embedding
        embedded = 0.0 if isinstance(cells[0], RowGruCell) else params["dropout_p_embed"]
        width = layers[-1] if self.embedding is None else self.embedding.shape[1]
        self.masks = DropoutMasks(
            ((width, embedded), *((size, params["dropout_p_hidden"]) for size in layers)),
            params["batch_size"],
            seed,
        )
        # random numbers are drawn for so many steps at once: at most 64, or 4 million numbers
        self.block = max(1, min(64, 2**22 // (params["n_sample"] + self.masks.numbers + 1)))
        self._steps: TrainingSteps | None = None

    def _initialiser(self, source: torch.Generator) -> Callable[[Tensor], None]:
        """U(−s, s) or N(0, s), with s from the shape of the block unless ``sigma`` sets it."""
        sigma, normal = self.params["sigma"], self.params["init_as_normal"]

        def fill(block: Tensor) -> None:
            scale = sigma or glorot_bound(*block.shape)
            if normal:
                block.normal_(0, scale, generator=source)
            else:
                block.uniform_(-scale, scale, generator=source)

        return fill

    # -- training ---------------------------------------------------------------------------

    @property
    def min_rows(self) -> int:
        """Two where the batch's own targets are the only negatives."""
        return 1 if self.params["n_sample"] else 2

    @torch.no_grad()
    def run_steps(self, plan: SessionParallelPlan, begin: int, end: int) -> Tensor:
        """Train on steps begin…end−1; their losses [end − begin], summed over rows ÷ batch size."""
        return self.training_steps().run(plan, begin, end)

    def training_state(self) -> dict[str, Any]:
        """The step counter, the hidden state and the optimisers' accumulators (live views)."""
        return self.training_steps().state()

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        self.training_steps().load(state)

    def keyed_rows(self) -> dict[str, Rows]:
        names = ["output", "bias", *(["embedding"] if self.embedding is not None else [])]
        return {name: Rows() for name in names}

    def optimiser_state(self) -> dict[str, Tensor]:
        return self.training_steps().accumulators()

    def training_steps(self) -> TrainingSteps:
        """The training machinery, built anew where the parameters have moved to another device."""
        if self._steps is None or not self._steps.attached:
            old = self._steps
            self._steps = TrainingSteps(self)
            if old is not None:
                self._steps.load(old.state())
        return self._steps

    # -- ranking ----------------------------------------------------------------------------

    def rows(self, items: Tensor) -> Tensor:
        """What the first layer reads for ``items``: […] → […, size of its input]."""
        table = self.output if self.embedding is None else self.embedding
        return nn.functional.embedding(items, table)

    def recurrent(self) -> Iterator[GruCell | RowGruCell]:
        """The layers, first to last."""
        for cell in self.cells:
            assert isinstance(cell, (GruCell, RowGruCell))
            yield cell

    @torch.no_grad()
    def encode(self, batch: SequenceBatch) -> Tensor:
        """The top layer's state after each position that has a target: [n_targets, H]."""
        # tokens time step by time step, without padding: rows come longest first
        step = torch.arange(batch.items.shape[1], device=batch.items.device)
        there = (step < batch.lengths[:, None]).T
        alive = there.sum(1).tolist()
        place = there.flatten().cumsum(0).view(there.shape) - 1
        x = self.rows(batch.items.T[there])
        for cell in self.recurrent():
            gates = cell.project(x)
            x = gates.new_empty(len(gates), cell.size)
            h, begin = gates.new_zeros(alive[0], cell.size), 0
            for rows in alive:
                end = begin + rows
                h = cell.advance(gates[begin:end], h[:rows])
                x[begin:end] = h
                begin = end
        return x[place.T[batch.targets >= 0]]

    def portable(self) -> nn.Module:
        return _LastState(self)

    def item_table(self) -> tuple[Tensor, Tensor | None]:
        return self.output.detach(), self.bias.detach()


class _LastState(nn.Module):
    """What :meth:`Model.portable` asks for: the state after each session's last event."""

    def __init__(self, model: Gru4Rec) -> None:
        super().__init__()
        self.model = model

    def forward(self, items: Tensor, times: Tensor, lengths: Tensor) -> Tensor:
        """[B, L], [B, L] and [B] int64 → [B, H]."""
        steps = self.model.rows(items).unbind(1)
        states = [steps[0].new_zeros(items.shape[0], cell.size) for cell in self.model.recurrent()]
        for step, x in enumerate(steps):
            there = (lengths > step)[:, None]
            for number, cell in enumerate(self.model.recurrent()):
                states[number] = torch.where(there, cell(x, states[number]), states[number])
                x = states[number]
        return states[-1]


MODEL = Gru4Rec
