"""What a study found: reports, comparisons, paramfiles and the final test.

A report is one object (:mod:`.report`), shown as Markdown and HTML; figures are in ``figures``.
"""
