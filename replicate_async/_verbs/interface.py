"""What a model takes and returns: inputs are checked and outputs converted by the schema of its version."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary, WeakValueDictionary

import anyio
import attrs

from .. import _arguments, exceptions
from .._files.output import FileOutput
from .._files.output_trees import as_gallery, to_output
from .._http.call import Call
from .._http.obstacles import Obstacles
from .._jobs.context import Context
from .._jobs.poller import account_of
from .._jobs.prediction import Output
from .._jobs.request import CreateOptions, CreateTarget
from .._jobs.run_state import OnAbandon
from .._jobs.versions import ModelKey, key_of
from .._references import parse_reference
from ..resources.deployments import Deployment
from ..resources.models import Model
from ..resources.versions import Version
from .chaining import await_outputs, close_coroutines, is_pending
from .run import Ref, plain_ref, target_of
from .schema import InputField, ModelSchema, read_schema

_SCHEMA_LIFETIME: Final = 3600.0
"""Seconds for which the schema of a model's latest version is remembered; that of a version never changes."""

_MAX_SCHEMAS: Final = 256


@attrs.frozen
class FunctionOptions:
    """The options of a model function, for each of its calls."""

    validate: bool
    """Whether inputs are checked before anything is sent."""
    timeout: float | timedelta | None
    on_abandon: OnAbandon
    retry_failed: int
    start_timeout: float | timedelta | None
    fallback: Sequence[str]
    create: CreateOptions


@attrs.define(eq=False)
class ModelInterface:
    """The interface of a model, as far as its schema is known."""

    context: Context
    ref: Ref = attrs.field(converter=plain_ref)
    options: FunctionOptions
    on_loaded: Callable[[], None]
    """Called when the schema is loaded."""
    target: CreateTarget | str = attrs.field(
        init=False, default=attrs.Factory(lambda self: target_of(self.ref), takes_self=True)
    )
    """What to run, or the name of a model that may not be an official one."""
    _schema: ModelSchema | None = attrs.field(default=None, init=False)
    _origin: object = attrs.field(default=None, init=False)
    """The schemas of the client when it was loaded. A reset gives the client others, and it is loaded again."""
    _account: tuple[str, str] | None = attrs.field(default=None, init=False, repr=False)
    """The account that it was loaded with. A function may return the tokens of several."""

    @property
    def name(self) -> str:
        """The name of the model, version or deployment."""
        found = getattr(self.ref, "full_name", None) or getattr(self.ref, "id", None) or self.ref
        return str(found)

    @property
    def is_loaded(self) -> bool:
        """Whether the schema is known, or known to be unknown."""
        return self._origin is self.context.schemas

    @property
    def schema(self) -> ModelSchema | None:
        """The schema; None if it is not loaded, or there is none."""
        return self._schema if self.is_loaded else None

    @property
    def makes_files(self) -> bool:
        """Whether files in the output are `FileOutput` objects."""
        chosen = self.options.create.use_file_output
        return self.context.use_file_output if chosen is None else chosen

    @property
    def joins(self) -> bool | None:
        """Whether the items of the output are pieces of one text; None if that is unknown."""
        return None if self.schema is None else self.schema.concatenates

    def secrets_of(self, inputs: Mapping[str, Any]) -> frozenset[str] | None:
        """Return the names of the inputs that are to be kept secret: all of them before the schema is loaded.

        None if there is no schema.
        """
        if not self.is_loaded:
            return frozenset(inputs)
        return None if self.schema is None else self.schema.secrets

    async def load(self) -> None:
        """Fetch the schema, unless it is known to the account of the caller."""
        if not self._is_loaded_here():
            origin, account = self.context.schemas, self._account_now()
            self._schema = await load_schema(self.context, self.ref)
            self._origin, self._account = origin, account
            self.on_loaded()

    def _is_loaded_here(self) -> bool:
        """Return whether the schema was loaded with the token of the present caller."""
        return self.is_loaded and self._account == self._account_now()

    def _account_now(self) -> tuple[str, str] | None:
        """Return the account of the caller; None without a token, which the schema of a `Version` does not need."""
        with suppress(exceptions.MissingToken):
            return account_of(self.context.transport)
        return None

    async def _load_in_time(self) -> None:
        """Fetch the schema, unless it is known; within the timeout of a call.

        Raises:
            TransportTimeout: The time is over.
        """
        if self._is_loaded_here():
            return
        seconds = _arguments.timeout_seconds(self.options.timeout)
        obstacles = Obstacles()
        with anyio.move_on_after(math.inf if seconds is None else seconds), obstacles.noted():
            await self.load()
            return
        assert seconds is not None
        fact = (
            f"nothing was created within {seconds:g} s: the schema of {self.name} was being fetched"
        )
        if obstacles.is_queued:
            fact += ", which was waiting for the rate limit"
        if obstacles.failure is not None:
            fact += f"; the last attempt failed: {obstacles.failure}"
        url = self.context.transport.config.base_url
        cause = obstacles.failure or obstacles.queue_full(seconds)
        raise exceptions.TransportTimeout("GET", url, fact) from cause

    # Inputs

    def check(self, inputs: Mapping[str, Any]) -> None:
        """Compare inputs with the schema, if it is known.

        Raises:
            ArgumentTypeError: An input is unknown, missing or of a wrong type.
            ArgumentError: The value of an input is not allowed.
        """
        self._validate(self._without_nulls(inputs))

    async def prepare_inputs(
        self, inputs: Mapping[str, Any], *, in_time: bool = False
    ) -> dict[str, Any]:
        """Return inputs that are checked, with the outputs of other functions in their places.

        Args:
            inputs: Inputs. Coroutines in them are awaited, or closed if this fails.
            in_time: Whether the schema must be known within the timeout of a call.

        Raises:
            ReplicateException: As `load` and `check`, and whatever the other functions raise.
        """
        try:
            await (self._load_in_time() if in_time else self.load())
            given = self._without_nulls(inputs)
            if self.options.validate:
                self._validate(given)
            awaited, outputs = await await_outputs(given)
        except BaseException:
            close_coroutines(inputs)
            raise
        for name in outputs:
            awaited[name] = self._single(name, awaited[name])
        if self.options.validate and awaited is not given:
            self._validate(awaited)
        return awaited

    def _validate(self, given: Mapping[str, Any]) -> None:
        problems = [] if self.schema is None else self.schema.problems(given, is_pending)
        if not problems:
            return
        first, *others = problems
        kind = exceptions.ArgumentTypeError if first.is_type else exceptions.ArgumentError
        rest = "".join(f"\n{problem.name}: {problem.text}" for problem in others)
        raise kind(first.name, f"{first.text} ({self.name}){rest}")

    def _field(self, name: str) -> InputField | None:
        return None if self.schema is None else self.schema.inputs.get(name)

    def _without_nulls(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Leave out the inputs that are None where the API would refuse `null` (:api:`requests`)."""

        def is_left_out(name: str, value: Any) -> bool:
            field = self._field(name)
            return value is None and field is not None and not field.nullable

        return {name: value for name, value in inputs.items() if not is_left_out(name, value)}

    def _single(self, name: str, output: Any) -> Any:
        """Return the only item of a list of one, where the model expects a single file or text."""
        field = self._field(name)
        is_alone = isinstance(output, list) and len(output) == 1
        return output[0] if is_alone and field is not None and field.type == "string" else output

    # Outputs

    def convert(self, raw: Any, prediction: str) -> Output:
        """Return the output of the prediction with this ID as users see it: text joined, files as files."""
        return as_gallery(self._converted(raw, prediction, files=self.makes_files))

    def with_files(self, raw: Any, prediction: str) -> Any:
        """Return the output of the prediction with this ID with all its files, even if users see their URLs."""
        return self._converted(raw, prediction, files=True)

    def _converted(self, raw: Any, prediction: str, *, files: bool) -> Any:
        guess = partial(self._guess, prediction, files=files)
        if self.schema is None:
            return guess(raw)
        return self.schema.convert(raw, partial(self._file, prediction, files=files), guess)

    def convert_item(self, raw: Any, prediction: str) -> Output:
        """Return one item of the output of the prediction with this ID as users see it."""
        guess = partial(self._guess, prediction, files=self.makes_files)
        if self.schema is None:
            return guess(raw)
        file = partial(self._file, prediction, files=self.makes_files)
        return self.schema.convert_item(raw, file, guess)

    def _file(self, prediction: str, url: str, *, files: bool) -> FileOutput | str:
        if not files:
            return url
        return FileOutput(url, transport=self.context.transport, prediction=prediction)

    def _guess(self, prediction: str, value: Any, *, files: bool) -> Output:
        """Convert what the schema does not describe."""
        return to_output(value, self.context.transport, files=files, prediction=prediction)


# -- Schemas -----------------------------------------------------------------------------------


@attrs.frozen
class _KnownSchema:
    """What is known of the schema of a model or version."""

    schema: ModelSchema | None
    """The schema; None if there is none."""
    expires_at: float
    """Time from which it is fetched again (monotonic)."""


_Locks: TypeAlias = WeakValueDictionary[tuple[int, object, str], anyio.Lock]

_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, _Locks] = WeakKeyDictionary()
"""By event loop, client and model: of many first calls at a time, one fetches the schema."""


async def load_schema(context: Context, ref: Ref) -> ModelSchema | None:
    """Return the schema of what a reference names; None if it cannot be known."""
    match ref:
        case Version():
            return read_schema(ref.openapi_schema, ref.cog_version)
        case Model(latest_version=Version(openapi_schema=document, cog_version=cog)) if document:
            return read_schema(document, cog)
        case Model():
            name = ref.full_name
        case Deployment(current_release=release):
            if release is None or release.model is None or release.version is None:
                return None
            name = f"{release.model}:{release.version}"
        case _:
            name = ref
    if parse_reference(name).full_name is None:
        return None  # the API does not find a version without its model
    key = key_of(context.transport, name)
    if (known := _known_schema(context, key)) is not None:
        return known.schema
    of_loop = _locks.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
    async with of_loop.setdefault((id(context.schemas), key.account, key.name), anyio.Lock()):
        if (known := _known_schema(context, key)) is not None:
            return known.schema
        return await _fetch_schema(context, key)


def _known_schema(context: Context, key: ModelKey) -> _KnownSchema | None:
    known: _KnownSchema | None = context.schemas.get(key)
    return known if known is not None and known.expires_at > time.monotonic() else None


async def _fetch_schema(context: Context, key: ModelKey) -> ModelSchema | None:
    reference = parse_reference(key.name)
    path = f"/models/{reference.full_name}"
    if reference.version is not None:
        path += f"/versions/{reference.version}"
    try:
        data = (await context.transport.send(Call("GET", path))).data
    except exceptions.NotFoundError:
        return None  # the create says why, or does without
    version = data if reference.version is not None else _member(data, "latest_version")
    cog_version = _member(version, "cog_version")
    schema = read_schema(
        _member(version, "openapi_schema"), cog_version if isinstance(cog_version, str) else None
    )
    lifetime = _SCHEMA_LIFETIME if reference.version is None else math.inf
    if len(context.schemas) >= _MAX_SCHEMAS:
        del context.schemas[next(iter(context.schemas))]
    known = _KnownSchema(schema, expires_at=time.monotonic() + lifetime)
    context.schemas[key] = known
    latest = _member(version, "id")
    if data is not version and _member(data, "is_official") is False and isinstance(latest, str):
        # The version whose schema this is, which the runs do not need to look up any more.
        context.models.learn(key, latest)
    return schema


def _member(value: object, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None
