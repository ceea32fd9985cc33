"""Event logs become datasets here: reading, cleaning, splitting, encoding."""

from paropt.data.dataset import Dataset, Split, View, open_dataset

__all__ = ["Dataset", "Split", "View", "open_dataset"]
