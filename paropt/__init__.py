"""paropt: finds the best sequential recommender for an event log."""

__version__ = "0.1.0"
