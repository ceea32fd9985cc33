"""What files say: parameter spaces and paramfiles.

:class:`.space.Space` is the value, :func:`.file.read_space` reads it. Knows no study.
"""
