"""The client of 1.x."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Unpack

from ._backend import Backend
from .account import Accounts
from .collection import Collections
from .deployment import Deployments
from .exceptions import ReplicateError as ReplicateError  # users look for it here, too
from .file import Files
from .hardware import HardwareNamespace as Hardware
from .model import Models
from .prediction import Predictions
from .run import async_run, run
from .stream import ServerSentEvent, async_stream, stream
from .training import Trainings
from .webhook import Webhooks

__all__ = ("Client",)


class Client(Backend):
    """A client for Replicate's HTTP API, with the shapes of 1.x."""

    def __init__(
        self,
        api_token: str | None = None,
        *,
        base_url: str | None = None,
        timeout: Any = None,
        **kwargs: Any,
    ) -> None:
        """Create a client. Nothing is opened or sent before the first request.

        Args:
            api_token: API token. Defaults to the environment variable `REPLICATE_API_TOKEN`, which is read at each
                request.
            base_url: URL of the API, with or without `/v1`. Defaults to the environment variable `REPLICATE_BASE_URL`.
            timeout: Timeouts for the network: an `httpx.Timeout`, seconds, or a tuple of them.
            kwargs: Options of httpx clients: `headers`, `proxy` and `verify`. Others are ignored where they have
                no visible effect, and refused otherwise.

        Raises:
            ArgumentTypeError: An option of httpx has no equivalent.
        """
        super().__init__(api_token, base_url=base_url, timeout=timeout, **kwargs)

    # Namespaces

    @property
    def accounts(self) -> Accounts:
        """The account of the API token."""
        return Accounts(self)

    @property
    def collections(self) -> Collections:
        """Collections of models."""
        return Collections(self)

    @property
    def deployments(self) -> Deployments:
        """Deployments: models on dedicated hardware."""
        return Deployments(self)

    @property
    def files(self) -> Files:
        """Uploaded files."""
        return Files(self)

    @property
    def hardware(self) -> Hardware:
        """Hardware that models run on."""
        return Hardware(self)

    @property
    def models(self) -> Models:
        """Models."""
        return Models(self)

    @property
    def predictions(self) -> Predictions:
        """Predictions: runs of models."""
        return Predictions(self)

    @property
    def trainings(self) -> Trainings:
        """Trainings: runs that create a new version of a model."""
        return Trainings(self)

    @property
    def webhooks(self) -> Webhooks:
        """Webhooks: the signing secret, and the verification of deliveries."""
        return Webhooks(self)

    # Verbs

    def run(
        self,
        ref: str,
        input: dict[str, Any] | None = None,
        *,
        use_file_output: bool | None = True,
        **params: Unpack[Predictions.CreatePredictionParams],
    ) -> Any:
        """Run a model, and wait for its output. Calls :api:`predictions.create`.

        Args:
            ref: `"owner/name"`, `"owner/name:version"`, a model or a version.
            input: Input of the model. Files anywhere in it are uploaded.
            use_file_output: Whether files in the output become `FileOutput` objects.
            params: Options, see `Predictions.CreatePredictionParams`. `wait` is `True` by default.

        Returns:
            The output; an iterator if a version was named whose output is one.

        Raises:
            ModelError: The model failed.
        """
        return run(self, ref, input, use_file_output=use_file_output, **params)

    async def async_run(
        self,
        ref: str,
        input: dict[str, Any] | None = None,
        *,
        use_file_output: bool | None = True,
        **params: Unpack[Predictions.CreatePredictionParams],
    ) -> Any:
        """Run a model, and wait for its output, as `run` does. Calls :api:`predictions.create`.

        Returns:
            The output; an async iterator if a version was named whose output is an iterator.
        """
        return await async_run(self, ref, input, use_file_output=use_file_output, **params)

    def stream(
        self,
        ref: str,
        *,
        input: dict[str, Any] | None = None,
        use_file_output: bool | None = True,
        **params: Unpack[Predictions.CreatePredictionParams],
    ) -> Iterator[ServerSentEvent]:
        """Run a model, and return its events as they arrive (:api:`streaming`).

        Args:
            ref: As for `run`.
            input: As for `run`.
            use_file_output: Whether files become `FileOutput` objects.
            params: As for `run`; `wait` has no effect.

        Returns:
            An iterator over the events, the last of which is `done`.

        Raises, from the iteration:
            RuntimeError: The model failed. It is a `ModelError`, too.
        """
        return stream(self, ref, input, use_file_output=use_file_output, **params)

    async def async_stream(
        self,
        ref: str,
        input: dict[str, Any] | None = None,
        *,
        use_file_output: bool | None = True,
        **params: Unpack[Predictions.CreatePredictionParams],
    ) -> AsyncIterator[ServerSentEvent]:
        """Run a model, and return its events as they arrive, as `stream` does (:api:`streaming`).

        Returns:
            An async iterator over the events, the last of which is `done`.
        """
        return async_stream(self, ref, input, use_file_output=use_file_output, **params)
