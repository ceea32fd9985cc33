"""What scripts and notebooks call (docs/python.md): ``import paropt`` has all of it.

The verbs of the command line stand on the same functions. Data frames are pandas'.
"""
