"""A report's page: of its final test where there was one, else of its search."""

from __future__ import annotations

from paropt.errors import ParoptError
from paropt.results.pages.document import Document
from paropt.results.pages.final_page import final_page
from paropt.results.pages.study_page import study_page
from paropt.results.searched import Json, Searched


def document(report: Json) -> Document:
    """
    Raises:
        ParoptError: the report is damaged.
    """
    try:
        return final_page(report) if report["test"] else study_page(Searched.from_json(report))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ParoptError(f"the report is damaged: {error!r}") from error
