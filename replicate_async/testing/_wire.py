"""The wire between clients and the emulator, where tests inject faults.

```python
with Emulator(wire=True) as emulator:
    emulator.wire.inject(Fault.RESET_AFTER_EXECUTION, method="POST", times=1)
    ...  # the first POST is carried out, but its response never comes
    assert emulator.wire.log[0].executed
```
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from ._faults import (
    Announce,
    Chooser,
    Fault,
    Injected,
    Injection,
    Injections,
    Plan,
    Reply,
    WireRequest,
)
from ._ledger import Origin
from ._proxy import Proxy


class Wire:
    """The faults of one emulator, made by ``Emulator(wire=True)`` as ``emulator.wire``.

    A proxy stands in front of the three origins and relays everything unchanged, except for what is
    injected. It closes, resets, cuts or stalls the sockets that clients hold.

    All methods may be called from any thread, before and while the emulator runs.
    """

    def __init__(
        self,
        proxy: Proxy,
        injections: Injections,
        log: list[Injected],
        on_loop: Callable[[Callable[[], None]], None],
    ) -> None:
        self.log: list[Injected] = log
        """Every fault that happened, in order. An entry is made before the client can notice."""
        self._proxy: Proxy = proxy
        self._injections: Injections = injections
        self._on_loop: Callable[[Callable[[], None]], None] = on_loop

    def __repr__(self) -> str:
        return f"<Wire {len(self._injections)} injections, {len(self.log)} faults happened>"

    def inject(
        self,
        fault: Fault | Reply | Chooser,
        *,
        method: str | None = None,
        path: str | None = None,
        origin: Origin | None = "api",
        attempt: int | Collection[int] | None = None,
        when: Callable[[WireRequest], bool] | None = None,
        times: int | None = None,
        probability: float = 1.0,
        executed: bool | None = None,
        status: int = 502,
        seconds: float | None = None,
        announce: Announce = "both",
        detail: str | None = None,
    ) -> Injection:
        """Make a fault happen to matching requests.

        A request matches if all given conditions hold. If several injections match, the one that was
        injected first happens.

        Args:
            fault: The fault, a `Reply` to send, or a function that gets each matching `WireRequest` and
                returns one of the two, or None to pass the request on. The function runs in a thread
                and may block.
            method: HTTP method of the requests. Defaults to any.
            path: Their path; ``*`` matches any text, slashes included. Defaults to any.
            origin: Their origin: ``api``, ``files``, ``stream``, or None for any.
            attempt: Only the nth of equal requests (same method, target and body), from 1; one number
                or several.
            when: Function that returns whether a request matches.
            times: Number of requests that it happens to. None for all.
            probability: Probability for each matching request; see `seed`.
            executed: Whether the emulator carries the request out. For ``ERROR_PAGE`` and `Reply`
                (default False), ``GARBAGE`` and ``HTML`` (default True).
            status: HTTP status of ``ERROR_PAGE``.
            seconds: Real seconds: of ``DELAY`` (default 1), between two bytes of ``DRIP`` (default
                0.05), or that ``THROTTLE`` asks to wait (default 1).
            announce: Where ``THROTTLE`` says how long to wait: in the ``header`` (whole seconds), the
                ``body``, ``both`` or ``nothing``.
            detail: Text in the body of ``THROTTLE``.

        Returns:
            The injection, which counts and can be removed.

        Raises:
            ValueError: An argument does not apply to the fault.
        """
        if fault is Fault.RESET_AT_ACCEPT and any(
            given is not None for given in (method, path, attempt, when)
        ):
            raise ValueError("RESET_AT_ACCEPT comes before there is a request to choose by")
        if not 0 <= probability <= 1:
            raise ValueError(f"probability: {probability!r} is not from 0 to 1")
        if times is not None and times < 1:
            raise ValueError(f"times: {times!r} is not 1 or more")
        if isinstance(fault, Fault | Reply):
            plan: Plan | Chooser = Plan.of(
                fault,
                executed=executed,
                status=status,
                seconds=seconds,
                announce=announce,
                detail=detail,
            )
        else:
            plan = fault
        return self._injections.add(
            fault,
            plan,
            method=method,
            path=path,
            origin=origin,
            attempt=attempt,
            when=when,
            times=times,
            probability=probability,
        )

    def interject(self, reply: Reply, *, busy: bool = False) -> None:
        """Send a reply that nobody asked for on the connections that clients keep.

        A client that takes it for the response to its next request gets each later response one request too
        late. Returns before it is sent.

        Args:
            reply: The reply.
            busy: Whether to send it also on connections with a request in progress, in front of, or amid,
                the response to that.
        """
        content = (b"" if reply.is_raw else reply.head()) + b"".join(reply.pieces())
        self._on_loop(lambda: self._proxy.interject(content, busy=busy))

    def clear(self) -> None:
        """Remove all injections. Faults in progress continue; the log is kept."""
        self._injections.clear()

    def seed(self, seed: int) -> None:
        """Seed the random numbers of `probability`, to repeat the same choices.

        Args:
            seed: Any integer.
        """
        self._injections.seed(seed)

    @property
    def connections(self) -> int:
        """Number of connections that clients hold."""
        return len(self._proxy.connections)

    @property
    def accepted(self) -> int:
        """Number of connections that clients have made so far."""
        return self._proxy.accepted

    def refuse(self) -> None:
        """Refuse new connections until `accept` is called, like a server that is down.

        Closes idle connections. Requests in progress are still answered.
        """
        self._on_loop(self._proxy.refuse)

    def accept(self) -> None:
        """Accept connections again, on the same ports."""
        self._on_loop(self._proxy.accept)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuse new connections in a ``with`` block."""
        self.refuse()
        try:
            yield
        finally:
            self.accept()
