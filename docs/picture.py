"""The README's picture: a terminal's content with its colours, as SVG.

tmux capture-pane -e -p -t PANE | python docs/picture.py docs/live.svg
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text


def main() -> None:
    text = Text.from_ansi(sys.stdin.read().rstrip())
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(text)
    picture = console.export_svg(title="paropt launch --space paramspaces/demo.json")
    # the page that shows it has a monospace font of its own; nothing is fetched
    picture = re.sub(r"@font-face \{.*?\}\n?", "", picture, flags=re.DOTALL)
    Path(sys.argv[1]).write_text("\n".join(line.rstrip() for line in picture.splitlines()) + "\n")


if __name__ == "__main__":
    main()
