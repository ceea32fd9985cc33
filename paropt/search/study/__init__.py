"""A study and its trials: definition, sampling, pruning, history, and what they amount to.

:class:`.study.Study` is the way in; it hands out :class:`.trial.Trial` objects.
"""
