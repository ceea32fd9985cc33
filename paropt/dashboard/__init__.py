"""optuna-dashboard behind a token, with paropt's notes, figures and files laid over it.

:mod:`.server` is the way in.
"""
