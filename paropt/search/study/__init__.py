"""A study and its trials: its definition, its state, who gets which trial, what it amounts to.

:class:`.study.Study` is the way in; it hands out :class:`.trial.Trial` objects.
"""
