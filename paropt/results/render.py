"""``paropt report``: a page from a directory or from a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from paropt.errors import ParoptError, StorageUnreachable, StudyError
from paropt.files import file_stem, write_text
from paropt.results import files
from paropt.results.final.final_test import latest_report
from paropt.results.final.report import search_report
from paropt.results.pages.html_page import page
from paropt.results.pages.markdown import markdown
from paropt.results.pages.of_report import document
from paropt.search.study.study import Study
from paropt.storage.connect import open_storage


def render(source: str, out: Path | None, storage_url: str | None) -> Path:
    """Write the page of a report in a directory, else of the study of that name; returns where. A
    file that ends in ``.md`` is Markdown, without figures.

    Raises:
        ParoptError: there is no report, or the page cannot be written.
        StudyError: no such study.
    """
    directory = Path(source)
    if (directory / files.JSON).is_file():  # a dataset may be called as its study is
        report = files.read(directory)
        out = out or directory / files.PAGE
    else:
        try:
            report = _of_study(source, storage_url)
        except (StudyError, StorageUnreachable):
            if directory.is_dir():
                files.read(directory)  # which says that it holds no report
            raise
        out = out or Path(f"{file_stem(source)}.html")
    try:
        shown = document(report)
        text = markdown(shown) if out.suffix == ".md" else page(shown)
    except ParoptError as error:
        raise ParoptError(f"the page of {source} cannot be made: {error}") from error
    write_text(out, text, overwrite=True)
    return out


def _of_study(name: str, storage_url: str | None) -> dict[str, Any]:
    with open_storage(storage_url) as storage:
        study = Study.load(storage.url, name)
        try:
            return latest_report(study) or search_report(study)
        finally:
            study.close()
