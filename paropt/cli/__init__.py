"""One file per verb: it parses words, calls one function of a room below, and prints.

Nothing imports it; :mod:`paropt.cli.main` is the program.
"""
