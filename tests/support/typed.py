"""What the tests of verbs type: a verb in their own process, a model that trains at once."""

from __future__ import annotations

from collections.abc import Callable

from click.testing import Result

PARAMS = "layers=16,batch_size=8,n_sample=32,learning_rate=0.1,n_epochs=3,loss=cross-entropy"
Paropt = Callable[..., Result]
