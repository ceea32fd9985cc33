"""The models: torch only, one file each; nothing here imports paropt.

Every module directly in this package is a model under its file's name (``models/gru4rec.py`` is
``"model": "gru4rec"``) and names its class in ``MODEL``. What several models share is in
``models.parts``. No torch at import, so that listing the models is cheap.
"""

# paropt looks for this marker: another distribution may also ship a top-level package `models`.
PAROPT_MODELS = 1
