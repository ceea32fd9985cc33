"""Spaces, studies and trials: all that knows Optuna.

Files are read in ``space`` and held against models and data in ``setup``; a ``study`` gives out
trials, which a ``strategy`` chooses and cuts by their ``history``.
"""
