"""Training and judging one model on one view of the data: batches, fits, ranks, metrics.

:class:`.fit.Fit` trains, :func:`.ranking.evaluate` judges; :mod:`.registry` is the only module of
paropt that imports models.
"""
