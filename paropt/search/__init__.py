"""Spaces, studies and trials: all that knows Optuna.

Files are read in ``space``, held against models and data in ``setup``, and searched in ``study``.
"""
