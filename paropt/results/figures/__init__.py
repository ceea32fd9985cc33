"""Figures: what one shows (:mod:`.description`), and three ways to draw it.

A description knows nothing of its drawing, so the dashboard (:mod:`.plotly`), a page or a paper
(:mod:`.svg`, :mod:`.png`) cannot show different things. :mod:`.of_study` says which figures a study
has.
"""
