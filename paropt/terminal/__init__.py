"""What a terminal shows of a study, and the words that steer it.

:mod:`.status` is of any study, :mod:`.live` of the one that runs here, :mod:`.control` steers.
"""
