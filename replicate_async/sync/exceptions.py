"""The exceptions, where code written for `replicate` 1.x looks for them: the same module as everywhere."""

from __future__ import annotations

import sys

from .. import exceptions
from ..exceptions import *  # noqa: F403

sys.modules[__name__] = exceptions
