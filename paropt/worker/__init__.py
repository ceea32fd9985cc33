"""One slot: the process that owns a trial, and the trainer process that owns a device.

:mod:`.slot` and :mod:`.trainer` are the two programs, :mod:`.protocol` is between them. Imports
neither :mod:`paropt.launch` nor :mod:`paropt.terminal`: a slot outlives both.
"""
