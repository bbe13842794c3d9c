"""The words of ``--extractor``, known without loading anything heavy."""

from __future__ import annotations

import sys

HERE = ("classifier", "mobilenet_v2", "inception")


def extractor_words(*, none: bool = True) -> tuple[str, ...]:
    """What ``--extractor`` takes: the extractors that are here, then those of plugins.

    Without ``none``, that word is not among them. Who registers an extractor has loaded
    :mod:`gan_core.metrics.features`: where that is not loaded, there are none but those here.
    """
    contract = sys.modules.get("gan_core.metrics.features")
    own = () if contract is None else (name for name in contract.EXTRACTORS if name not in HERE)
    return ("auto", *HERE, *(("none",) if none else ()), *own)
