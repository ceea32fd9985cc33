"""The version, where any room can read it without what ``import paropt`` offers."""

__version__ = "0.2.0"
