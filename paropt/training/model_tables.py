"""Tables of the models' declared parameters for a page of the documentation.

::

    python -m paropt.training.model_tables docs/models.md

rewrites what stands between ``<!-- parameters NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from paropt.training.registry import Param, declaration, default_of, range_of

_PLACE = re.compile(r"(<!-- parameters (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(name: str) -> str:
    """A model's parameters as a Markdown table."""
    rows = ["| parameter | type, range | default | meaning |", "|---|---|---|---|"]
    return "\n".join(rows + [_row(param) for param in declaration(name).values()]) + "\n"


def _row(param: Param) -> str:
    kind = ", ".join(filter(None, [param.type, range_of(param)]))
    default = default_of(param)
    meaning = f"{param.help} ({param.source})" if param.source else param.help
    cells = [f"`{param.name}`", kind, default, meaning]
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def rewritten(text: str) -> str:
    """``text`` with every table as the models declare it now."""
    return _PLACE.sub(lambda found: found[1] + table(found[2]) + found[3], text)


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(rewritten(page.read_text(encoding="utf-8")), encoding="utf-8")
