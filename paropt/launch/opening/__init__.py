"""Before any slot starts: what was asked for, refused, created, or found to be there already.

:mod:`.open_study` is the way in.
"""
