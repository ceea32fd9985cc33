"""From a command to a study on data, with slots at work on this machine.

What ``--data`` names is found in ``data``, a study is created or joined in ``opening``, and
:mod:`.launcher` starts ``slots`` and watches them.
"""
