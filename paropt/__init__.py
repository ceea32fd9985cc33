"""paropt: finds the best sequential recommender for an event log."""

__version__ = "0.2.0"
