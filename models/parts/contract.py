"""The contract between a model and whoever trains, ranks and stores it.

A model is an ``nn.Module`` that derives from :class:`Model`. It declares its parameters
(:data:`Model.PARAMS`), says which kind of plan it trains on (:data:`Model.PLAN`), and then either

* returns a loss for a batch (:meth:`Model.loss`), and paropt differentiates, clips, steps the
  optimiser and moves the learning rate; or
* owns its steps (:meth:`Model.run_steps`), because its speed lives there; or
* counts (:meth:`Model.count`, with the plan "counting"): it sees the training split once, whole; or
* returns a loss for a batch of items (:meth:`Model.item_loss`, with the plan "items"): it learns
  from what is known of them, and from no sequence.

For ranking it gives a vector per target position (:meth:`Model.encode`) and one table of items
(:meth:`Model.item_table`), or scores every item itself (:meth:`Model.score`); a model that is
judged by something else overrides :meth:`Model.evaluate`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from models.parts.fields import Bags, Field, FieldKind, Kinds, Needs, Table, Vectors
from models.parts.parameters import Param, ParamType
from models.parts.rows import Rows

__all__ = [
    "Bags",
    "Catalogue",
    "Facts",
    "Field",
    "FieldKind",
    "Kinds",
    "Metric",
    "Model",
    "Needs",
    "Param",
    "ParamType",
    "PlanKind",
    "Rows",
    "SequenceBatch",
    "SessionParallelPlan",
    "Stage",
    "Table",
    "TrainingEvents",
    "Vectors",
]

PlanKind = Literal["session-parallel", "sequences", "counting", "items"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that a model reports of itself (:meth:`Model.evaluate`)."""

    name: str
    direction: Literal["maximize", "minimize"] = "maximize"
    help: str = ""


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of a training (:meth:`Model.stages`).

    It has at most ``epochs`` epochs (0: it is left out), and ends earlier when ``patience`` of them
    brought nothing better (0: never). It trains the parameters whose names are in ``trains``, or
    begin with one of these and a dot; () means all; those in ``leaves`` it doesn't in any case.
    ``learning_rate``, ``schedule`` and ``warmup``
    are those of the parameters of these names where they are None.
    """

    name: str
    epochs: int
    trains: tuple[str, ...] = ()
    learning_rate: float | None = None
    schedule: str | None = None
    warmup: float | None = None
    patience: int = 0
    leaves: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the data before a model is built: enough to refuse what cannot work.

    ``columns``, ``items`` and ``users`` describe what is kept of events, items and users, by name.
    """

    n_items: int
    n_sessions: int
    n_events: int
    longest: int  # events of the longest training session
    has_times: bool  # False where the log had an order but no time
    n_users: int = 0  # 0 where it isn't known whose sessions they are
    columns: Mapping[str, Field] = field(default_factory=dict)
    items: Mapping[str, Field] = field(default_factory=dict)
    users: Mapping[str, Field] = field(default_factory=dict)


@dataclass(frozen=True)
class Catalogue:
    """The items of a training split.

    ``support`` [n_items] int64 counts each item's events in that split. ``items`` and ``users``
    have the fields that the model needs (:meth:`Model.needs`); row i is that of item or user i.
    ``features`` holds all numbers and codes of items, one tensor [n_items] per name. ``unseen`` are
    the ``n_unseen`` items of the data that this training never saw, with the same fields and codes:
    nothing may be learnt of them, but a model that knows items by more than their ids can rank them
    (:meth:`Model.add_items`).

    ``holders`` counts the training sessions that have each item ("item", [n_items] int64), and each
    code of a categorical column of events (by its name, [size]); a saved model has none of it.
    """

    facts: Facts
    support: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    items: Table = field(default_factory=Table)
    users: Table = field(default_factory=Table)
    unseen: Table = field(default_factory=Table)
    n_unseen: int = 0
    holders: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def n_items(self) -> int:
        return self.facts.n_items


@dataclass(frozen=True)
class SessionParallelPlan:
    """One epoch of session-parallel mini-batches (GRU4Rec, arXiv 1511.06939, section 3.1.1).

    Row b of step t reads ``inputs[t, b]`` and predicts ``targets[t, b]``; ``resets[t, b]`` says
    that the row begins a session there, so its hidden state is zero before the step. Slots are
    ordered so that the rows in use are always the first ``n_valid[t]``; the rest hold 0.

    Shapes: inputs, targets [steps, B] int64; resets [steps, B] bool; n_valid is a list [steps] on
    the host, because it decides shapes; ``n_full`` is how many steps, all at the start, use all B
    rows. ``columns`` of the inputs, ``wanted`` of the targets [steps, B] and ``users`` [steps, B]
    are there where the model needs them, as in a :class:`SequenceBatch`.
    """

    inputs: Tensor
    targets: Tensor
    resets: Tensor
    n_valid: list[int]
    batch_size: int
    n_full: int
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    wanted: Mapping[str, Tensor] = field(default_factory=dict)
    users: Tensor | None = None

    @property
    def steps(self) -> int:
        return len(self.n_valid)

    @property
    def events(self) -> int:
        return sum(self.n_valid)


@dataclass(frozen=True)
class SequenceBatch:
    """Sequences, right-padded, with what comes next at every position.

    Shapes [B, L]: ``items`` int64 (0 where padded), ``targets`` int64 (the next item, −1 where
    nothing is to be predicted), ``times`` int64 milliseconds of the inputs and ``query_times`` of
    the targets (order-only data: the event's index). ``lengths`` [B] int64. Rows are sorted by
    length, longest first.

    Where the model needs them (:meth:`Model.needs`): ``columns`` of the inputs and ``wanted`` of
    the targets by name [B, L], codes int64 and numbers float32, −1 and NaN where unknown or
    padded; ``users`` [B] int64, −1 where unknown.
    """

    items: Tensor
    targets: Tensor
    times: Tensor
    query_times: Tensor
    lengths: Tensor
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    wanted: Mapping[str, Tensor] = field(default_factory=dict)
    users: Tensor | None = None

    @property
    def n_targets(self) -> int:
        return int((self.targets >= 0).sum())

    def part(self, rows: slice, length: int, targets: Tensor) -> SequenceBatch:
        """Some rows, cut to their first ``length`` events, that ask for ``targets`` [rows, length]
        of them only (−1: not this one)."""
        return SequenceBatch(
            items=self.items[rows, :length],
            targets=targets,
            times=self.times[rows, :length],
            query_times=self.query_times[rows, :length],
            lengths=self.lengths[rows].clamp(max=length),
            columns={name: values[rows, :length] for name, values in self.columns.items()},
            wanted={name: values[rows, :length] for name, values in self.wanted.items()},
            users=None if self.users is None else self.users[rows],
        )

    def parts(self, most: int) -> Iterator[SequenceBatch]:
        """The batch in parts of at most ``most`` targets, in row-major order of the targets."""
        wanted = self.targets >= 0
        number = wanted.flatten().cumsum(0).view_as(wanted)  # from 1
        for begin in range(0, self.n_targets, most):
            asked = wanted & (number > begin) & (number <= begin + most)
            used, columns = asked.any(1).nonzero(), asked.any(0).nonzero()
            rows, length = slice(int(used[0]), int(used[-1]) + 1), int(columns[-1]) + 1
            targets = torch.where(asked, self.targets, -1)[rows, :length]
            yield self.part(rows, length, targets)


@dataclass(frozen=True)
class TrainingEvents:
    """A training split, whole, as a counting model sees it.

    Shapes [events]: ``items`` int64 and ``times`` int64 milliseconds (order-only data: the event's
    index). ``offsets`` [sessions + 1] int64: session s has the events offsets[s]…offsets[s + 1]−1.
    Sessions are in the order of their first events. ``columns`` [events] and ``users`` [sessions]
    are there where the model needs them, as in a :class:`SequenceBatch`.
    """

    items: Tensor
    times: Tensor
    offsets: Tensor
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    users: Tensor | None = None


class Model(nn.Module):
    """A model that paropt can train, rank with, save and search."""

    PARAMS: ClassVar[tuple[Param, ...]] = ()
    METRICS: ClassVar[tuple[Metric, ...]] = ()
    """What :meth:`evaluate` reports, the most important first; nothing where paropt ranks."""
    PLAN: ClassVar[PlanKind] = "sequences"
    MEMORY: ClassVar[str] = ""
    """The parameter that says how many rows :meth:`memory` has at most; 0 turns it off."""

    def __init__(self, params: Mapping[str, Any], catalogue: Catalogue, seed: int) -> None:
        """Build the model on the CPU; everything random in it follows from ``seed``.

        ``params`` holds every declared parameter, parsed.
        """
        super().__init__()
        self.params = dict(params)
        self.catalogue = catalogue
        self.seed = seed

    @classmethod
    def check(cls, params: Mapping[str, Any], facts: Facts | None = None) -> None:
        """Refuse parameters that do not fit each other, or (with ``facts``) the data.

        Raises:
            ValueError: one clause with the parameters, their values and what would fit.
        """

    @classmethod
    def needs(cls, params: Mapping[str, Any]) -> Needs:
        """What these (complete) parameters read beside items and times: nothing, by default.

        Data that lack it are refused before anything starts.
        """
        return Needs()

    # -- training ---------------------------------------------------------------------------

    stage: str = ""
    """The stage that is trained now, of a model that declares some."""

    @classmethod
    def stages(cls, params: Mapping[str, Any]) -> Sequence[Stage]:
        """The parts of a training with these (complete) parameters, in their order.

        Each has an optimiser and a schedule of its own, begins with the best weights of the one
        before, by the metric that is searched for, and leaves what it doesn't train as it is. The
        training ends with the best weights of all stages. (): it has no stages, and
        ``n_epochs`` epochs.
        """
        return ()

    def begin_epoch(self, epoch: int) -> str:
        """Called before epoch ``epoch`` (from 1), also when resumed there; returns its stage.

        When the returned name differs from the last one, the optimiser is built anew from the
        parameters that then require gradients. A model with :meth:`stages` has :attr:`stage`
        instead, and what it returns is not looked at.
        """
        return "main"

    def loss(self, batch: SequenceBatch) -> Tensor:
        """The mean loss of a batch's targets, a scalar with a graph."""
        raise NotImplementedError(f"{type(self).__name__} has neither loss() nor run_steps()")

    def item_loss(self, items: Tensor) -> Tensor:
        """The mean loss of a batch of items [B] int64, a scalar with a graph (plan "items").

        An epoch has each of :meth:`training_items` once, in an order that follows from the seed.
        """
        raise NotImplementedError(f"{type(self).__name__} has no item_loss()")

    def training_items(self) -> Tensor:
        """With the plan "items": those to train on [n] int64; all with events, by default."""
        return self.catalogue.support.nonzero().squeeze(1)

    def count(self, events: TrainingEvents) -> None:
        """Learn all of the training split in one pass; called once, with the plan "counting".

        What is learned goes into buffers, which are saved with the model. Those whose shapes
        follow from the data are registered empty (``torch.zeros(0)``), and get their shapes back
        when the model is loaded.
        """
        raise NotImplementedError(f"{type(self).__name__} has no count()")

    def after_step(self) -> None:
        """Called after each optimiser step of a model with :meth:`loss` (router biases, say)."""

    def end_epoch(self, epoch: int) -> dict[str, Any]:
        """Called after the epoch's last step; returns diagnostics that JSON can hold."""
        return {}

    @property
    def min_rows(self) -> int:
        """The fewest rows of a session-parallel step; an epoch ends before the first with less."""
        return 1

    # Models that own their steps define
    #   run_steps(plan, begin, end) -> Tensor [end - begin]
    # which trains on steps begin…end−1 of this epoch's plan and returns their losses, on the
    # device, without waiting for it. Called with ascending, adjacent ranges; begin == 0 starts an
    # epoch.

    def training_state(self) -> dict[str, Any]:
        """What resuming needs beside parameters and buffers: tensors, numbers, text, by name.

        Optimisers that paropt builds are stored by paropt; own optimisers belong in here, as do
        hidden states and random generators. With it, resumed training equals uninterrupted
        training bit for bit on a CPU.
        """
        return {}

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """The reverse of :meth:`training_state`."""

    # -- going on: a training that begins with an older model's weights ----------------------

    def keyed_rows(self) -> Mapping[str, Rows]:
        """Those weights and buffers of the state dict that have a row per item, or per word of
        the data, by name: in a model of newer data their rows are found again one by one, by the
        items' ids and by the words. All others are taken over as they are.

        Raises:
            NotImplementedError: a training cannot begin with such a model; one clause.
        """
        raise NotImplementedError("it doesn't say which of its weights are of which item")

    def optimiser_state(self) -> dict[str, Tensor]:
        """The accumulators of an optimiser of the model's own, live, by "weight/accumulator": of
        a weight with :meth:`keyed_rows`, row by row. Nothing where paropt has the optimiser."""
        return {}

    # -- memory: what is remembered of users, say, and is no weight -------------------------

    def memory(self) -> dict[str, Tensor]:
        """What the model remembers, by name: tensors [rows, …], at most as many rows as the
        parameter :attr:`MEMORY` says.

        It is data, not weights: a file of its own beside them, looked at and forgotten by
        ``paropt memory``. It moves in training mode only; an evaluation leaves it as it is. Where
        rows are of users, a tensor ``user`` [rows] int64 says of which.
        """
        return {}

    def load_memory(self, memory: Mapping[str, Tensor]) -> None:
        """The reverse of :meth:`memory`; of nothing: forget everything."""

    def memory_facts(self) -> dict[str, float]:
        """Numbers about the memory, to be shown with every epoch (the mean age of a row, say)."""
        return {}

    def update_memory(self, batch: SequenceBatch) -> int:
        """Remember what happened in a batch, all of whose events are new, in eval mode.

        Called by request only (``recommend --update-memory``), without gradients. Returns how many
        rows of the memory it moved.
        """
        return 0

    @classmethod
    def memory_bytes(cls, params: Mapping[str, Any], facts: Facts) -> int:
        """The most bytes that :meth:`memory` takes on these data; 0 where it isn't known."""
        return 0

    # -- ranking ----------------------------------------------------------------------------

    @property
    def scores_itself(self) -> bool:
        """Whether ranking asks :meth:`score`, and not for vectors and a table."""
        return type(self).score is not Model.score

    def encode(self, batch: SequenceBatch) -> Tensor:
        """One vector per target, in row-major order of ``batch.targets >= 0``: [n_targets, d].

        Runs in eval mode without gradients; the score of item i is ``vector · table[i] + bias[i]``.
        """
        raise NotImplementedError(f"{type(self).__name__} has no encode()")

    def item_table(self) -> tuple[Tensor, Tensor | None]:
        """What :meth:`encode`'s vectors are matched with: table [n_items, d], bias [n_items]."""
        raise NotImplementedError(f"{type(self).__name__} has no item_table()")

    def score(self, batch: SequenceBatch) -> Tensor:
        """The score of every item for every target, as :meth:`encode` orders them:
        [n_targets, n_items].

        A model that is no product of vectors and a table overrides it; batches then come in parts
        of a few hundred targets. Runs in eval mode without gradients.
        """
        table, bias = self.item_table()
        scores = self.encode(batch).float() @ table.float().T
        return scores if bias is None else scores + bias

    def user_vectors(self, batch: SequenceBatch) -> Tensor:
        """One vector per row of ``batch``, whose events are a user's latest: [B, d].

        That is what ``paropt embed`` writes. Rows have at most :attr:`max_length` events, and each
        asks for one target, what comes after its last event, at that event's time; items,
        columns and times of the batch are all that is known of the user. A model whose user
        vector isn't what it ranks with overrides it. Runs in eval mode without gradients.
        """
        return self.encode(batch)

    def add_items(self, items: Table, count: int) -> None:
        """Read and rank ``count`` more items in eval mode, which training never saw.

        ``items`` has the fields that the model needs, in the catalogue's codes; its row j gets the
        index n_items + j, in batches and in :meth:`item_table`. They take the place of those added
        before; 0 of them: there are none any more. Codes that no item in training has are unknown.

        Raises:
            NotImplementedError: the model knows items by their ids only; one clause.
        """
        if count:
            raise NotImplementedError("it knows no items but those of its training")

    def worked_out(self) -> dict[str, Tensor]:
        """What a saved model ranks with in place of vectors of items, which it doesn't hold.

        Called in eval mode without gradients when the model is saved: the table that a tower
        gives for all items, say.
        """
        return {}

    def load_worked_out(self, tensors: Mapping[str, Tensor]) -> None:
        """The reverse of :meth:`worked_out`, called after the weights of a saved model."""

    def portable(self) -> nn.Module:
        """The same as a plain module, for other runtimes: without kernels of our own, of shapes
        that follow from its inputs alone.

        Its ``forward(items, times, lengths)`` takes right-padded sessions [B, L] int64, times in
        milliseconds [B, L] int64 and how many events there are [B] int64, at least 1; it gives the
        vector [B, d] after each session's last event, which :meth:`item_table` goes with, as it
        is asked for at that event's time.

        Raises:
            NotImplementedError: there is no such form; one clause.
        """
        raise NotImplementedError("it has no form for other runtimes")

    def evaluate(self, batches: Iterable[SequenceBatch]) -> Mapping[str, float | Tensor] | None:
        """Metrics of an evaluation that isn't next-item ranking; None leaves it to paropt.

        A metric that is a mean may be given as the values [n] that it is the mean of: then it gets
        a confidence interval. They are one per target, in the order of the batches, or one per
        other unit (a user, say), always the same ones in the same order.

        Raises:
            ValueError: these are no data that it can be judged by; one clause.
        """
        return None

    @classmethod
    def floors(
        cls, catalogue: Catalogue, batches: Iterable[SequenceBatch]
    ) -> Mapping[str, Mapping[str, float | Tensor]]:
        """By name, what needs no training in the task of :meth:`evaluate`: metrics as it gives
        them, to stand beside the model's wherever those are shown."""
        return {}

    @classmethod
    def floors_with(
        cls,
        params: Mapping[str, Any],
        catalogue: Catalogue,
        batches: Iterable[SequenceBatch],
    ) -> Mapping[str, Mapping[str, float | Tensor]]:
        """:meth:`floors` of a model with these (complete) parameters, where they depend on them."""
        return cls.floors(catalogue, batches)

    @property
    def max_length(self) -> int | None:
        """The most events of a sequence that the model looks at; None for all of them."""
        return None

    @property
    def device(self) -> torch.device:
        held = next(itertools.chain(self.parameters(), self.buffers()), self.catalogue.support)
        return held.device
