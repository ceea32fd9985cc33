"""Semantic ids: vectors of items as codes, added to a dataset, with a report of their use."""
