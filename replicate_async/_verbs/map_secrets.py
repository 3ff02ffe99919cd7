"""Which inputs of a fan-out are to be kept secret, as the schema of the model says."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import anyio
import attrs

from .. import exceptions
from .._jobs.context import Context
from .interface import load_schema
from .map_plan import Plan
from .schema import ModelSchema

_logger = logging.getLogger("replicate_async")


@attrs.define(eq=False)
class Secrets:
    """The secret inputs of a model, which are not written down."""

    _context: Context
    _plan: Plan
    _schema: ModelSchema | None = attrs.field(default=None, init=False)
    """The schema of the model, if it was fetched here."""
    _is_settled: bool = attrs.field(default=False, init=False)
    """Whether it was fetched, or cannot be."""
    _fetching: anyio.Lock = attrs.field(factory=anyio.Lock, init=False)

    async def learn(self) -> None:
        """Fetch the schema before something is written down; only the first call has an effect."""
        plan = self._plan
        if plan.interface is not None or (plan.journal or plan.save_to) is None:
            return
        async with self._fetching:
            if self._is_settled:
                return
            try:
                self._schema = await load_schema(self._context, plan.ref)
            except exceptions.ReplicateException as error:
                _logger.warning(
                    "the schema of %s, which tells secret inputs, cannot be fetched (%s): they are"
                    " recognised by their names",
                    plan.match.label,
                    error,
                )
            self._is_settled = True

    def of(self, given: Mapping[str, Any]) -> frozenset[str] | None:
        """Return the names of the inputs that are to be kept secret; None if they are not known."""
        if self._plan.interface is not None:
            return self._plan.interface.secrets_of(given)
        return None if self._schema is None else self._schema.secrets
