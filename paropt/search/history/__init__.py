"""What has happened in a study, and what that amounts to: budgets, failures, equal spend.

:class:`.history.History` is kept in memory, one :class:`.history.Record` for each trial.
"""
