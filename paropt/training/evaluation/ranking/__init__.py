"""A model's ranks of the right next items, and what else is measured of a model."""
