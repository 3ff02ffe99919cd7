"""Records of the emulator: accounts, models, versions, predictions, files, deployments.

Plain records and look-ups. How they look on the wire is in `_views`, what moves them in `_lifecycle`.
Creation times are unique and increase, so they serve as cursor positions (:api:`pagination`).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import mimetypes
import secrets
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qs, quote, urlencode

import attrs

from ._authoring import OutputFile
from ._clock import NANOSECONDS, Clock, Signal, Timer
from ._execution import Code
from ._limits import AccountLimits, RateLimits

Credit = Literal["ample", "low", "none", "no-billing"]
Status = Literal["starting", "processing", "succeeded", "failed", "canceled", "aborted"]
Visibility = Literal["public", "private"]

TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "canceled", "aborted"})
RETENTION = 3600
"""Seconds that data of API predictions, output files and streams are kept (:api:`retention`)."""
UPLOADS_KEPT = 24 * 3600
"""Seconds that uploaded files are kept."""

_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_MICROSECOND = 1000


def new_id() -> str:
    """Return a prediction id in the newer form: 26 characters of a lowercase base32."""
    number = secrets.randbits(128) << 2
    return "".join(_ID_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))


def version_id(*parts: str) -> str:
    """Return 64 hex digits made from *parts*."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@attrs.define(eq=False)
class Version:
    """One version of a model.

    Attributes:
        streams: Whether its predictions have a stream URL.
        setup: Seconds of the emulator's clock that a prediction stays in ``starting``.
        stream_logs: Whether streams carry ``logs`` events, too.
        stream_retry: Milliseconds for a ``retry:`` field at the start of streams.
    """

    id: str
    model: Model
    code: Code
    created: int
    cog_version: str | None
    schema: dict[str, Any]
    streams: bool = False
    setup: float = 0.0
    stream_logs: bool = False
    stream_retry: int | None = None
    runners: set[str] = attrs.Factory(set)
    trained_from: bool = False


@attrs.define(eq=False)
class Model:
    """One model.

    Attributes:
        any_version: Whether every version id is one of its versions, and runs the newest one.
    """

    owner: str
    name: str
    created: int
    visibility: Visibility = "public"
    official: bool = False
    description: str | None = None
    hardware: str = "cpu"
    github_url: str | None = None
    paper_url: str | None = None
    license_url: str | None = None
    weights_url: str | None = None
    cover_image_url: str | None = None
    readme: str | None = None
    run_count: int = 0
    versions: list[Version] = attrs.Factory(list)
    any_version: bool = False
    examples: list[Prediction] = attrs.Factory(list)
    default_example: Prediction | None = None
    tags: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """``owner/name``."""
        return f"{self.owner}/{self.name}"

    @property
    def latest(self) -> Version | None:
        """The newest version."""
        return self.versions[-1] if self.versions else None


@attrs.define(eq=False)
class Event:
    """One event of a stream, ready to be sent."""

    seconds: int
    index: int
    raw: bytes


@attrs.define(eq=False)
class Prediction:
    """One prediction or training. Times are nanoseconds since the epoch.

    Attributes:
        shown_version: What the ``version`` field says: an id or ``hidden``.
        timer: Its deadline, and then the end of its retention.
        revision: Grows with every change.
        changed: Fires with every change.
        events: The stream so far; None without a stream.
        files: URLs of output files that this prediction made.
        kept: Whether its data is exempt from retention, as that of examples is.
    """

    id: str
    kind: Literal["prediction", "training"]
    account: Account
    version: Version
    shown_version: str
    input: dict[str, Any]
    created: int
    model_name: str
    source: Literal["api", "web"] = "api"
    deployment: Deployment | None = None
    destination: Model | None = None
    webhook: str | None = None
    webhook_events: list[str] | None = None
    deadline: int | None = None
    status: Status = "starting"
    started: int | None = None
    completed: int | None = None
    output: Any = None
    error: str | None = None
    metrics: dict[str, float] = attrs.Factory(dict)
    data_removed: bool = False
    kept: bool = False
    stream_token: str | None = None
    events: list[Event] | None = None
    files: dict[str, OutputFile] = attrs.Factory(dict)
    revision: int = 0
    changed: Signal = attrs.Factory(Signal)
    task: asyncio.Task[None] | None = None
    timer: Timer | None = None
    _logs: list[str] = attrs.Factory(list)
    encoded: dict[str, tuple[int, bytes]] = attrs.Factory(dict)

    @property
    def terminal(self) -> bool:
        """Whether it will not change any more."""
        return self.status in TERMINAL

    @property
    def logs(self) -> str:
        """The log text so far."""
        if len(self._logs) > 1:
            self._logs = ["".join(self._logs)]
        return self._logs[0] if self._logs else ""

    def add_logs(self, text: str) -> None:
        """Append to the log text."""
        self._logs.append(text)

    def touch(self) -> None:
        """Note a change, and wake all that wait for one."""
        self.revision += 1
        self.changed.fire()

    def remove_data(self) -> None:
        """Drop input, output and logs, as happens an hour after completion."""
        if self.kept or self.data_removed:
            return
        self.input = {}
        self.output = None
        self._logs = []
        self.events = None
        self.files = {}
        self.data_removed = True
        self.encoded.clear()
        self.touch()


@attrs.define(eq=False)
class File:
    """One uploaded file."""

    id: str
    account: Account
    name: str
    content_type: str
    content: bytes
    sha256: str
    md5: str
    metadata: dict[str, Any]
    created: int
    expires: int


@attrs.define(eq=False)
class Release:
    """The version and the hardware that a deployment runs."""

    number: int
    model: Model
    version: Version
    created: int
    hardware: str
    min_instances: int
    max_instances: int


@attrs.define(eq=False)
class Deployment:
    """One deployment."""

    account: Account
    name: str
    created: int
    release: Release
    last_used: int | None = None

    @property
    def enabled(self) -> bool:
        """Whether it takes predictions."""
        return self.release.min_instances > 0 or self.release.max_instances > 0


@attrs.define(eq=False)
class Account:
    """A user or an organization, with all that belongs to it."""

    username: str
    type: Literal["user", "organization"]
    name: str
    token: str
    webhook_secret: str
    limits: AccountLimits | None = None
    credit: Credit = "ample"
    predictions: list[Prediction] = attrs.Factory(list)
    trainings: list[Prediction] = attrs.Factory(list)
    files: dict[str, File] = attrs.Factory(dict)
    deployments: dict[str, Deployment] = attrs.Factory(dict)


@attrs.define(eq=False)
class Collection:
    """A named group of models."""

    slug: str
    name: str
    description: str
    full_description: str | None
    models: list[Model] = attrs.Factory(list)


@attrs.define(eq=False)
class StoredOutput:
    """An output file on the files origin."""

    file: OutputFile
    content_type: str
    etag: str
    created: int


class Store:
    """All records, with look-ups.

    Registering models, accounts and files is safe from any thread; everything else happens on the
    emulator's loop.
    """

    def __init__(self, clock: Clock, limits: RateLimits | None) -> None:
        self.clock = clock
        self.rate_limits = limits
        self.accounts: dict[str, Account] = {}
        self.owners: dict[str, Account] = {}
        self.models: dict[str, Model] = {}
        self.versions: dict[str, Version] = {}
        self.predictions: dict[str, Prediction] = {}
        self.collections: dict[str, Collection] = {}
        self.streams: dict[str, Prediction] = {}
        self.outputs: dict[str, StoredOutput] = {}
        self.web_files: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._last_tick = 0

    def tick(self) -> int:
        """Return the present as a creation time in whole microseconds that nothing else has."""
        now = self.clock.time_ns() // _MICROSECOND * _MICROSECOND
        with self._lock:
            self._last_tick = now = max(now, self._last_tick + _MICROSECOND)
        return now

    def add_account(self, account: Account) -> Account:
        """Add an account under its token and its name."""
        if self.rate_limits is not None:
            account.limits = AccountLimits(self.clock, self.rate_limits)
        self.accounts[account.token] = account
        self.owners[account.username] = account
        return account

    def model(self, name: str, visibility: Visibility = "public") -> Model:
        """Return a model by its name; add it if there is none.

        Args:
            name: ``owner/name``.
            visibility: Visibility of a new model.

        Raises:
            ValueError: *name* is not ``owner/name``.
        """
        owner, slash, rest = name.partition("/")
        if not (owner and slash and rest) or "/" in rest or ":" in name:
            raise ValueError(f"a model's name has the form owner/name, not {name!r}")
        model = self.models.get(name)
        if model is None:
            model = self.models[name] = Model(owner, rest, self.tick(), visibility=visibility)
        return model

    def add_version(
        self,
        model: Model,
        code: Code,
        *,
        id: str | None = None,
        streams: bool | None = None,
        **options: Any,
    ) -> Version:
        """Add a version to a model.

        Args:
            model: The model.
            code: What the version runs.
            id: Its id. Defaults to a digest of model, time and schema.
            streams: Whether its predictions have a stream. Defaults to True for iterators and file outputs.
            **options: Further attributes of `Version`.
        """
        schema = code.openapi_schema
        created = self.tick()
        text = json.dumps(schema, sort_keys=True, default=str)
        version = Version(
            id=id or version_id(model.full_name, str(created), text),
            model=model,
            code=code,
            created=created,
            schema=schema,
            streams=code.iterates or code.output_is_file if streams is None else streams,
            **options,
        )
        self.versions[version.id] = version
        model.versions.append(version)
        return version

    def find_version(self, id: str, model: Model | None = None) -> Version | None:
        """Return a version by its id.

        Args:
            id: The id.
            model: Its model. None if it is not known: an id that no version has is then one of the only
                model that takes any.
        """
        found = self.versions.get(id)
        if found is not None:
            return found if model is None or found.model is model else None
        if model is None:
            takers = [each for each in list(self.models.values()) if each.any_version]
            model = takers[0] if len(takers) == 1 else None
        if model is None or not model.any_version or model.latest is None:
            return None
        return attrs.evolve(model.latest, id=id)

    def visible_model(self, owner: str, name: str, account: Account) -> Model | None:
        """Return a model if *account* may see it."""
        model = self.models.get(f"{owner}/{name}")
        if model is None or (model.visibility == "private" and model.owner != account.username):
            return None
        return model

    def add_output(self, file: OutputFile, origin: str) -> str:
        """Keep an output file and return its URL."""
        token = secrets.token_urlsafe(32)
        name = file.name or "output"
        content_type = file.content_type or mimetypes.guess_type(f"./{name}")[0]
        self.outputs[token] = StoredOutput(
            file,
            content_type or "application/octet-stream",
            f'"{hashlib.md5(file.content, usedforsecurity=False).hexdigest()}"',
            self.clock.time_ns(),
        )
        return f"{origin}/xezq/{token}/{quote(name)}"

    def output(self, path: str) -> StoredOutput | None:
        """Return the output file at a path of the files origin, unless it has expired."""
        parts = path.split("/")
        stored = self.outputs.get(parts[2]) if len(parts) == 4 else None
        if stored is None or quote(stored.file.name or "output") != parts[3]:
            return None
        if self.clock.time_ns() >= stored.created + RETENTION * NANOSECONDS:
            return None
        return stored

    def insert(self, prediction: Prediction) -> None:
        """Remember a prediction or training."""
        self.predictions[prediction.id] = prediction
        account = prediction.account
        mine = account.predictions if prediction.kind == "prediction" else account.trainings
        index = bisect_left(mine, prediction.created, key=by_created)
        while index < len(mine) and mine[index].created == prediction.created:
            prediction.created += _MICROSECOND
            index += 1
        mine.insert(index, prediction)
        if prediction.stream_token is not None:
            self.streams[prediction.stream_token] = prediction

    def forget(self, prediction: Prediction) -> None:
        """Remove a prediction or training."""
        self.predictions.pop(prediction.id, None)
        account = prediction.account
        mine = account.predictions if prediction.kind == "prediction" else account.trainings
        index = bisect_left(mine, prediction.created, key=by_created)
        if index < len(mine) and mine[index] is prediction:
            del mine[index]
        if prediction.stream_token is not None:
            self.streams.pop(prediction.stream_token, None)
        self.forget_outputs(prediction)

    def forget_version(self, version: Version) -> list[Prediction]:
        """Remove a version and its predictions; return those."""
        if version in version.model.versions:  # else it stands for any version
            version.model.versions.remove(version)
        self.versions.pop(version.id, None)
        gone = [p for p in self.predictions.values() if p.version is version]
        for prediction in gone:
            self.forget(prediction)
        return gone

    def forget_outputs(self, prediction: Prediction) -> None:
        """Remove the output files of a prediction."""
        for url in prediction.files:
            self.outputs.pop(url.split("/")[4], None)


def by_created(record: Prediction | File | Deployment | Version | Model) -> int:
    """Return the creation time, as a sort key."""
    return record.created


# --- pages ---------------------------------------------------------------------------------------

T = TypeVar("T")


@attrs.frozen
class Cursor:
    """A position in a list, in the scheme of Django REST Framework."""

    position: int
    reverse: bool

    def encode(self) -> str:
        """Return it in the form for links."""
        seconds, rest = divmod(self.position, NANOSECONDS)
        moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // _MICROSECOND)
        query = {"r": "1"} if self.reverse else {}
        text = urlencode({**query, "p": moment.isoformat(" ", "microseconds")})
        return base64.b64encode(text.encode()).decode()

    @classmethod
    def decode(cls, text: str) -> Cursor:
        """Read a cursor.

        Raises:
            ValueError: It is none of ours.
        """
        query = parse_qs(base64.b64decode(text, validate=True).decode("ascii"))
        if "p" not in query:
            raise ValueError("no position")
        return cls(nanoseconds(datetime.fromisoformat(query["p"][0])), query.get("r") == ["1"])


def nanoseconds(moment: datetime) -> int:
    """Return a datetime as nanoseconds since the epoch; a naive one is in UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86400 + since.seconds) * NANOSECONDS + since.microseconds * _MICROSECOND


def page(
    items: Sequence[T],
    key: Callable[[T], int],
    *,
    cursor: Cursor | None,
    size: int,
    descending: bool = True,
    after: int | None = None,
    before: int | None = None,
) -> tuple[list[T], Cursor | None, Cursor | None]:
    """Cut one page out of a list.

    Args:
        items: All items, ascending by *key*, whose values are unique.
        key: Position of an item.
        cursor: Where the page starts; None for the first page.
        size: Items on a page.
        descending: Whether the page shows the greatest position first.
        after: Leave out items below this position.
        before: Leave out items from this position on.

    Returns:
        The items in the order shown, the next cursor and the previous one.
    """
    low = 0 if after is None else bisect_left(items, after, key=key)
    high = len(items) if before is None else bisect_left(items, before, key=key)
    first, last = low, high
    down = descending
    if cursor is not None:
        down = descending != cursor.reverse
        if down:
            last = max(low, min(high, bisect_left(items, cursor.position, key=key)))
        else:
            first = min(high, max(low, bisect_right(items, cursor.position, key=key)))
    if down:
        first = max(first, last - size)
    else:
        last = min(last, first + size)
    found = list(items[first:last])
    if descending:
        found.reverse()
    if not found:
        return [], None, None
    lower, higher = first > low, last < high
    onward, back = (lower, higher) if descending else (higher, lower)
    return (
        found,
        Cursor(key(found[-1]), reverse=False) if onward else None,
        Cursor(key(found[0]), reverse=True) if back else None,
    )
