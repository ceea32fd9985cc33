"""A user's package with a model that paropt has never seen."""
