"""True and false, as programs write them: True, TRUE, t, 1."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

TRUE, FALSE = ("true", "t", "yes", "1", "1.0"), ("false", "f", "no", "0", "0.0")


def truths_of(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """What texts mean [n] bool; null for any other text."""
    written = pc.utf8_lower(pc.utf8_trim_whitespace(texts))
    true, false = (pc.is_in(written, pa.array(words)) for words in (TRUE, FALSE))
    return pc.if_else(pc.or_(true, false), true, pa.scalar(None, pa.bool_()))
