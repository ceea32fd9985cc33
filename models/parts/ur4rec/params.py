"""What UR4Rec declares beside SASRec's own parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.parts.contract import Facts, Param

EXPERTS = ("preference", "descriptions", "embeddings")
TRIGGERS = ("INTERACTION_COUNT", "DRIFT_THRESHOLD", "TIME_BASED", "EXPLICIT")
STAGES = ("pretrain_sasrec", "pretrain_retriever", "joint_finetune", "end_to_end")

TEXT_PARAMS: tuple[Param, ...] = (
    Param("item_text", "names", ("title_vector",), "fields of vectors that describe items"),
    Param("user_text", "names", (), "fields of vectors that say what users would like"),
)

RETRIEVER_PARAMS: tuple[Param, ...] = (
    Param(
        "query",
        "str",
        "user",
        "what the experts are asked with: SASRec's state, one product for all items; or each "
        "candidate, of the first rerank of SASRec's",
        choices=("user", "candidate"),
    ),
    Param(
        "contexts",
        "str",
        "history",
        "whose texts and embeddings the experts read: the latest items', or (query candidate) the "
        "candidate's own",
        choices=("history", "candidate"),
    ),
    Param("rerank", "int", 100, "candidates of query candidate", low=2, high=10_000),
    Param("candidate_negatives", "int", 15, "of query candidate, in training", low=1, high=10_000),
    Param("context_length", "int", 10, "latest items that the experts read", low=1, high=1024),
    Param(
        "positions",
        "float",
        0.4,
        "share of a batch's positions that the retriever is trained on",
        low=0,
        low_open=True,
        high=1,
    ),
    Param(
        "retriever_experts", "names", EXPERTS, f"of {', '.join(EXPERTS)}; none: the query as it is"
    ),
    Param("retriever_heads", "int", 2, "attention heads of the retriever", low=1, high=256),
    Param("retriever_ffn", "float", 1.0, "width of an expert's feed-forward over dim", low=0.25),
    Param("retriever_dropout", "float", 0.1, "of the retriever", low=0, high=1, high_open=True),
    Param("router_temperature", "float", 1.0, "divides the router's logits", low=0, low_open=True),
    Param(
        "moe_num_proxies",
        "int",
        4,
        "learned vectors that the experts' mixture attends to; 0: a plain average, no router",
        low=0,
        high=1024,
    ),
    Param(
        "retriever_temperature",
        "float",
        0.07,
        "divides the retriever's cosines",
        low=0,
        low_open=True,
        high=100,
    ),
)

MEMORY_PARAMS: tuple[Param, ...] = (
    Param("memory_users", "int", 300_000, "users remembered at most; 0: no memory", low=0),
    Param(
        "max_memory_size",
        "int",
        10,
        "earlier states kept of a user; 0: no memory",
        low=0,
        high=1000,
    ),
    Param("memory_trigger", "str", "INTERACTION_COUNT", "what moves a memory", choices=TRIGGERS),
    Param("memory_threshold", "int", 10, "events between two updates", low=1),
    Param("drift_threshold", "float", 0.3, "1 − cosine of lately and remembered", low=0, high=2),
    Param("memory_days", "float", 1.0, "days between two updates", low=0, low_open=True),
    Param("memory_decay", "float", 0.95, "of a state, per threshold or days", low=0, high=1),
)

FUSION_PARAMS: tuple[Param, ...] = (
    Param(
        "fusion",
        "str",
        "weighted",
        "fixed weights, one that is learned, or one for each user",
        choices=("weighted", "learned", "adaptive"),
    ),
    Param("fusion_weight", "float", 0.5, "SASRec's, or where it starts", low=0, high=1),
    Param(
        "fusion_scale",
        "str",
        "log-softmax",
        "what is summed: log-probabilities, or scores of unit variance over the items",
        choices=("log-softmax", "z-score"),
    ),
    Param(
        "rank_by",
        "str",
        "fused",
        "which scores rank once the retriever is trained",
        choices=("fused", "sasrec", "retriever"),
    ),
)

STAGE_PARAMS: tuple[Param, ...] = (
    Param("pretrain_sasrec", "int", 30, "epochs of SASRec alone", low=0, high=100_000),
    Param("pretrain_retriever", "int", 10, "epochs of the retriever alone", low=0, high=100_000),
    Param("joint_finetune", "int", 5, "epochs of both in turn", low=0, high=100_000),
    Param("end_to_end", "int", 0, "epochs of both at once", low=0, high=100_000),
    Param(
        "alternate",
        "str",
        "steps",
        "joint_finetune's turns: every other step, or when a loss stands still",
        choices=("steps", "loss"),
    ),
    Param(
        "retriever_learning_rate",
        "float",
        0.001,
        "of AdamW, for the retriever and the fusion",
        low=0,
        low_open=True,
        high=1,
    ),
    Param(
        "end_to_end_rate",
        "float",
        0.2,
        "times both learning rates in end_to_end",
        low=0,
        low_open=True,
        high=10,
    ),
)

UR4REC_PARAMS = (*STAGE_PARAMS, *TEXT_PARAMS, *RETRIEVER_PARAMS, *MEMORY_PARAMS, *FUSION_PARAMS)


def remembers(params: Mapping[str, Any]) -> bool:
    """Whether there is a memory."""
    return bool(params["memory_users"] and params["max_memory_size"] and trains(params))


def trains(params: Mapping[str, Any]) -> bool:
    """Whether any stage trains the retriever."""
    return any(params[stage] for stage in STAGES[1:])


def check_retriever(params: Mapping[str, Any], facts: Facts | None) -> None:
    """Refuse what cannot be.

    Raises:
        ValueError: one clause.
    """
    if params["dim"] % params["retriever_heads"]:
        raise ValueError(
            f"dim {params['dim']} is not divisible by retriever_heads {params['retriever_heads']}"
        )
    if unknown := [name for name in params["retriever_experts"] if name not in EXPERTS]:
        raise ValueError(
            f"retriever_experts has {unknown[0]!r}, and there are {', '.join(EXPERTS)}"
        )
    if params["contexts"] == "candidate" and params["query"] != "candidate":
        raise ValueError("contexts candidate needs query candidate, not user")
    if params["end_to_end"] and params["query"] == "candidate":
        raise ValueError("end_to_end needs query user: a candidate's score is no part of a softmax")
    if facts is not None and remembers(params):
        _check_memory(params, facts)


def _check_memory(params: Mapping[str, Any], facts: Facts) -> None:
    if not facts.n_users:
        raise ValueError(
            "a memory is of users, and the data don't say whose sessions they are; set "
            "memory_users=0, or prepare them with --user-key"
        )
    if params["memory_trigger"] == "TIME_BASED" and not facts.has_times:
        raise ValueError("memory_trigger TIME_BASED needs times, and the data have an order only")
