"""What people read of a study: one document of blocks, written as Markdown or as HTML.

:mod:`.of_report` chooses the page: a final test's where there was one, else the search's.
"""
