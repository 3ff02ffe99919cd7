"""The leases of the sync facade's event loop, which all clients of the process share.

The first client that makes a request starts the loop, and closing the last one stops it. At the end of the interpreter,
what still runs is cancelled. After a fork, the child gets a loop of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sys
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar

import attrs

from .. import exceptions
from . import _exit
from ._interrupts import watch
from ._portal import GRACE, ExitPortal, Pending, Portal, Work

P = ParamSpec("P")
T = TypeVar("T")
Wrap: TypeAlias = Callable[["Lease", Any], Any]


@attrs.define(eq=False)
class Claim:
    """One client's claim to the loop, which lasts until the client is closed.

    It is closed by `close`, or without waiting by `drop`, when nobody uses the client any more. At the end of the
    interpreter `release`, and in the child of a fork `abandon`, take it off its loop only: it may get another one.
    """

    _aclose: Work
    closed: bool = attrs.field(default=False, init=False)
    """Whether the client is closed, or is being closed."""
    _lock: threading.RLock = attrs.field(init=False, factory=threading.RLock)
    _portal: Portal | None = attrs.field(default=None, init=False)
    _running: set[Pending] = attrs.field(init=False, factory=set)
    """The work that is cancelled when the client is closed. Only used on the loop."""
    _closing: tuple[Portal, Pending] | None = attrs.field(default=None, init=False)
    """The portal on whose loop the client is being closed, and the work that does this."""

    def __attrs_post_init__(self) -> None:
        _shared.claims.add(self)

    def portal(self) -> Portal:
        """Return the portal to the loop; start the loop if necessary."""
        portal = self._portal
        if portal is not None and portal.open:
            return portal
        with self._lock:
            if self.closed:
                raise exceptions.ClientClosed
            if self._portal is None or not self._portal.open:
                self._portal = _shared.join(self)
            return self._portal

    def run(self, portal: Portal, start: Callable[[Pending, Work], object], work: Work) -> Any:
        """Have *start* called on the loop, and return or raise the outcome of the work."""
        watch.refuse_if_interrupted()
        pending = Pending()
        try:
            portal.run(pending, start, work)
            return pending.result()
        except asyncio.CancelledError:
            # The client was closed, the loop was stopped, or the work has cancelled itself.
            if self.closed or (portal.open and self.uses(portal)):
                raise exceptions.ClientClosed from None
            raise exceptions.LoopClosed("the sync facade was shut down meanwhile") from None
        except exceptions.LoopClosed:
            if self.closed:
                raise exceptions.ClientClosed from None
            raise

    def start(self, pending: Pending, work: Work) -> None:
        """Start some work in a task that ends with the client. Only called on the loop."""
        portal = self._portal
        if portal is not None:
            portal.start(pending, work, self._running)
        else:
            pending.give_up()  # the client is closed

    def close(self) -> None:
        """Close the client, cancel what still runs, and stop the loop if this was the last client."""
        portal = self._portal
        if portal is not None and portal.open:
            portal.check()  # before the portal is given up
        pending = Pending()
        portal = self._give_up_portal(pending)
        if portal is not None:
            try:
                portal.run(pending, portal.start, self._wind_up, set())
                with contextlib.suppress(asyncio.CancelledError):  # the loop is shut down meanwhile
                    pending.result()
            finally:
                _shared.leave(self, wait=True)
        elif self._closing is not None:
            # Perhaps another thread is still closing it.
            portal, pending = self._closing
            if not portal.inside:
                pending.wait(2 * GRACE)

    def drop(self) -> None:
        """Close the client without waiting, for the garbage collector."""
        pending = Pending()
        portal = self._give_up_portal(pending)
        if portal is not None:
            with contextlib.suppress(exceptions.LoopClosed):
                portal.post(portal.start, pending, self._wind_up_and_leave, set())

    def _give_up_portal(self, closing: Pending) -> Portal | None:
        """Refuse further work, and return the portal on which *closing* has to close the client.

        Returns:
            The portal; None if there is nothing to close.
        """
        with self._lock:
            portal, self._portal, self.closed = self._portal, None, True
            if portal is None:
                return None
            if not portal.open:
                _shared.leave(self, wait=False)
                return None
            self._closing = portal, closing
            return portal

    def abandon(self) -> None:
        """Forget the loop of the parent process. Called in the child right after a fork."""
        self._lock = threading.RLock()  # another thread of the parent may have held it
        self._portal = self._closing = None
        self._running = set()

    def release(self) -> None:
        """Cancel what runs, and stop using the loop. The client can still be used, with another loop."""
        with self._lock:
            portal, self._portal = self._portal, None
        if portal is not None:
            portal.run(Pending(), portal.start, self._cancel_running, set())

    def uses(self, portal: Portal) -> bool:
        """Return whether the client still uses a portal."""
        return self._portal is portal

    async def _wind_up(self) -> None:
        """Close the client, which stops what costs money, and cancel what still runs."""
        try:
            await self._aclose()
        finally:
            await self._cancel_running()

    async def _cancel_running(self) -> None:
        tasks = [pending.task for pending in self._running if pending.task is not None]
        for task in tasks:
            task.cancel("the client is closed")
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE)

    async def _wind_up_and_leave(self) -> None:
        try:
            await self._wind_up()
        finally:
            _shared.leave(self, wait=False)


class Lease:
    """The right to use the loop, which a client and all objects that it has returned hold.

    The client is closed by `close()`, when the last holder is garbage-collected, or when the interpreter exits.
    """

    __slots__ = ("__weakref__", "claim", "wrap")

    claim: Claim
    """The client's claim to the loop. It outlives the lease until the client is closed."""
    wrap: Wrap
    """Returns the twin of an async object, and anything else as it is."""

    def __init__(self, aclose: Work, wrap: Wrap) -> None:
        """Make a lease for a client, which *aclose* closes."""
        self.wrap = wrap
        self.renew(aclose)

    def renew(self, aclose: Work) -> None:
        """Begin anew, after the client was closed: it can be used again, and *aclose* closes it."""
        self.claim = Claim(aclose)
        # The finalizer must not refer to the lease.
        weakref.finalize(self, self.claim.drop).atexit = False

    def call(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Await `function(*args, **kwargs)` on the loop, and return its result."""
        claim = self.claim
        work = functools.partial(function, *args, **kwargs)
        result: T = claim.run(claim.portal(), claim.start, work)
        return result

    def close(self) -> None:
        """Close the client, and stop the loop if this was the last client."""
        self.claim.close()

    def close_unless(self, is_view: bool) -> None:
        """Close the client at the end of a `with` block, unless the block was that of a view."""
        if not is_view:
            self.close()


class _SharedLoop:
    """The one loop of this process, and the clients that use it."""

    def __init__(self) -> None:
        self.claims: weakref.WeakSet[Claim] = weakref.WeakSet()
        """The claims of all clients, including those that have not been used."""
        self._portals: weakref.WeakSet[Portal] = weakref.WeakSet()
        self._left_behind: list[object] = []
        self._forking = False
        self._unpark: Callable[[], None] | None = None
        self._reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=self._after_fork_in_parent,
                after_in_child=self._after_fork_in_child,
            )
        _exit.handlers.append(self._at_exit)

    def _reset(self) -> None:
        self._lock = threading.RLock()
        self._portal: Portal | None = None
        self._users: set[Claim] = set()
        self._exiting = False

    def join(self, claim: Claim) -> Portal:
        """Return the portal for a client; start it for the first."""
        with self._lock:
            if self._exiting:
                # Other threads are about to end, whatever they have begun.
                if sys.is_finalizing() or threading.current_thread() is not threading.main_thread():
                    raise exceptions.LoopClosed("the interpreter is exiting")
                return ExitPortal()
            # Before the rest: the garbage collector may let other clients leave in the middle of it.
            self._users.add(claim)
            try:
                portal = self._portal
                if portal is None or not portal.open:
                    _refuse_greenlets()
                    portal = Portal()
                    self._portals.add(portal)
                    self._portal = portal
            except BaseException:
                self._users.discard(claim)
                raise
            return portal

    def leave(self, claim: Claim, *, wait: bool) -> None:
        """Note that a client needs the portal no longer; stop it after the last."""
        with self._lock:
            if claim not in self._users:
                return
            self._users.discard(claim)
            if self._users:
                return
            portal, self._portal = self._portal, None
        if portal is not None:
            portal.stop(join=wait)

    def _before_fork(self) -> None:
        """Prepare for a fork: let no loop be started or stopped, and stop the loop between two callbacks.

        There, it holds no lock, and nothing is half done.
        """
        self._lock.acquire()
        self._forking = True
        if self._portal is not None:
            self._unpark = self._portal.park()

    def _after_fork_in_parent(self) -> None:
        if not self._forking:
            return  # this module was imported when the fork had begun
        self._forking = False
        unpark, self._unpark = self._unpark, None
        self._lock.release()
        if unpark is not None:
            unpark()

    def _after_fork_in_child(self) -> None:
        # The loop's selector and sockets belong to the parent, too. Their finalizers would disturb it,
        # so they are kept for good.
        self._forking = False
        self._unpark = None
        self._reset()
        portals, claims = list(self._portals), list(self.claims)
        self._left_behind += [*portals, *claims]
        for portal in portals:
            portal.abandon()
        for claim in claims:
            claim.abandon()

    def _at_exit(self) -> None:
        with self._lock:
            self._exiting = True
            claims = list(self._users)
        for claim in claims:
            with contextlib.suppress(Exception):
                claim.release()
        for portal in list(self._portals):
            with contextlib.suppress(Exception):
                portal.stop(join=True)


def _refuse_greenlets() -> None:
    """Raise if gevent or eventlet have replaced threads, which the loop needs."""
    monkey: Any = sys.modules.get("gevent.monkey")
    patcher: Any = sys.modules.get("eventlet.patcher")
    if (monkey is not None and monkey.is_module_patched("threading")) or (
        patcher is not None and patcher.is_monkey_patched("thread")
    ):
        raise exceptions.LoopClosed(
            "gevent or eventlet have replaced threads by greenlets, and the sync facade needs a thread"
        )


_shared: Final = _SharedLoop()
