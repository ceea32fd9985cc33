"""Which configuration comes next, and which trials are not worth their remaining epochs.

:class:`.sampling.Sampler` chooses, the functions of :mod:`.pruning` cut; both read a history alone.
"""
