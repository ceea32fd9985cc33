"""Scripts for paropt 0.1 find :func:`open_storage` here; it lives in paropt.storage.connect."""

from paropt.storage.connect import open_storage

__all__ = ["open_storage"]
