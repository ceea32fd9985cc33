"""One slot: the process that owns a trial, and the trainer process that owns a device.

Imports neither :mod:`paropt.launch` nor :mod:`paropt.terminal`: a slot outlives both.
"""
