"""From a command to a study on data, with slots at work on this machine.

:mod:`.open_study` creates or resumes, :mod:`.launcher` starts slots and watches them.
"""
