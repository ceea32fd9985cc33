"""The version of the training semantics; free of torch, so that a study can record it."""

SEMANTICS = 1
"""Raised when the same parameters, data and seed no longer give the same numbers."""

DEFAULT_SEED = 42  # of a study and of a training, where nobody names one
