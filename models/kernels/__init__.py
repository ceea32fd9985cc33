"""C that the machine's compiler makes at first use, and how Python calls it.

:func:`.library.kernels` is the way in; README.md says what each computes.
"""
