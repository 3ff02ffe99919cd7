"""Run a model and wait for its output."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress
from typing import Any, Final

import anyio

from .. import exceptions
from ._arguments import Target, create_options, target_of, with_urls
from ._backend import Backend, Operation
from ._objects import has_ended, received
from .exceptions import ModelError, ReplicateError, ReplicateException
from .helpers import transform_output
from .model import Model as Model  # as in 1.x
from .prediction import Prediction, Predictions
from .schema import (
    make_schema_backwards_compatible as make_schema_backwards_compatible,
)  # as in 1.x
from .schema import version_has_no_array_type
from .version import Version, Versions

__all__ = ("async_run", "run")

_CANCEL: Final = 5.0
"""Seconds in which a prediction that is abandoned has to be cancelled."""


def run(
    client: Backend,
    ref: Any,
    input: dict[str, Any] | None = None,
    *,
    use_file_output: bool | None = True,
    **params: Any,
) -> Any:
    """Run a model, and wait for its output; see `Client.run`."""
    target = target_of(ref)
    iterates = _known(client, ref, target)
    if iterates is None:
        # Before the create: a failure after it would lose what has been paid for.
        with suppress(ReplicateError):
            assert target.model is not None
            iterates = _learn(client, Versions(client, target.model).get(str(target.version)))
    if iterates and not params.get("wait", True):
        prediction = Predictions(client).create(version=str(target.version), input=input, **params)
        return _pieces(client, prediction)
    try:
        output = client.call(_run(target, input, params))
    except exceptions.ModelError as error:
        output = _output_of(error, client)
    return _result(client, output, iterates, use_file_output)


async def async_run(
    client: Backend,
    ref: Any,
    input: dict[str, Any] | None = None,
    *,
    use_file_output: bool | None = True,
    **params: Any,
) -> Any:
    """Run a model, and wait for its output; see `Client.async_run`."""
    target = target_of(ref)
    iterates = _known(client, ref, target)
    if iterates is None:
        with suppress(ReplicateError):
            assert target.model is not None
            found = await Versions(client, target.model).async_get(str(target.version))
            iterates = _learn(client, found)
    if iterates and not params.get("wait", True):
        prediction = await Predictions(client).async_create(
            version=str(target.version), input=input, **params
        )
        return _async_pieces(client, prediction)
    try:
        output = await client.async_call(_run(target, input, params))
    except exceptions.ModelError as error:
        output = _output_of(error, client)
    result = _result(client, output, iterates, use_file_output)
    return _async_iterator(result) if iterates and output is not None else result


def _known(client: Backend, ref: Any, target: Target) -> bool | None:
    """Return whether the output is an iterator; None if only the API can tell."""
    if target.version is None:
        return False  # as in 1.x, which does not know the version
    if isinstance(ref, Version):
        return _learn(client, ref)
    return client.known_to_iterate(target.version)


def _learn(client: Backend, version: Version) -> bool:
    output: Any = version.openapi_schema
    release: object = version.cog_version
    for name in ("components", "schemas", "Output"):
        output = output.get(name) if isinstance(output, dict) else None
    iterates = (
        isinstance(output, dict)
        and output.get("type") == "array"
        and (
            output.get("x-cog-array-type") == "iterator"
            or (isinstance(release, str) and bool(version_has_no_array_type(release)))
        )
    )
    client.learn(version.id, iterates=iterates)
    return iterates


def _run(target: Target, input: Any, params: dict[str, Any]) -> Operation:
    options, wait = create_options(params), params.get("wait", True)
    return lambda api: api.run(
        str(target), with_urls(input or {}), wait=False if wait is None else wait, **options
    )


def _output_of(error: exceptions.ModelError, client: Backend) -> Any:
    """Return the output of a prediction that was canceled, which is no error in 1.x.

    Raises:
        ModelError: It failed, or never started.
    """
    prediction = received(Prediction, error.prediction, client)
    if isinstance(error, exceptions.PredictionCanceled):
        return prediction.output
    if isinstance(error, (exceptions.PredictionFailed, exceptions.PredictionAborted)):
        raise ModelError(prediction) from error
    raise error


def _result(
    client: Backend, output: Any, iterates: bool | None, use_file_output: bool | None
) -> Any:
    if iterates and output is not None:
        # What has been paid for is passed on, whatever the schema says.
        return _transformed(client, output if isinstance(output, list | str) else [output])
    return transform_output(output, client) if use_file_output else output


def _transformed(client: Backend, output: Iterable[Any]) -> Iterator[Any]:
    for item in output:
        yield transform_output(item, client)


async def _async_iterator(items: Iterable[Any]) -> AsyncIterator[Any]:
    for item in items:
        yield item


def _pieces(client: Backend, prediction: Prediction) -> Iterator[Any]:
    """Yield the items of an output as they appear; cancel the prediction if that is abandoned."""
    try:
        for item in prediction.output_iterator():
            yield transform_output(item, client)
    except BaseException:
        if not has_ended(prediction):
            with suppress(ReplicateException):
                prediction.cancel()
        raise


async def _async_pieces(client: Backend, prediction: Prediction) -> AsyncIterator[Any]:
    """Yield the items of an output as they appear; cancel the prediction if that is abandoned."""
    try:
        async for item in prediction.async_output_iterator():
            yield transform_output(item, client)
    except BaseException:
        if not has_ended(prediction):
            with suppress(ReplicateException), anyio.move_on_after(_CANCEL, shield=True):
                await prediction.async_cancel()
        raise
