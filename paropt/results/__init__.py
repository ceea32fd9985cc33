"""What a study found: reports, comparisons, paramfiles and the final test.

A report is one object (:mod:`.final.report`), shown as Markdown and HTML by ``pages``; figures are
in ``figures``.
"""
