"""A chat bot: `!paint PROMPT` paints a picture, and `!stop` cancels it.

Services such as Discord call a bot for each message, and let it edit its replies. `Terminal` stands in for one: a line
of the standard input is a message, the first word being its author.

    $ python docs/examples/bot.py
    alice !paint a paper boat
    alice: processing 40 %
    alice: https://...
"""

import os
import sys
from collections.abc import AsyncIterator
from typing import Protocol

import anyio
import attrs

import replicate_async as replicate
from replicate_async import exceptions

MODEL = os.environ.get("MODEL", "emulator/painter")
LIMIT = replicate.RateLimit(max_queue=10)


@attrs.frozen
class Message:
    """A message of an author."""

    author: str
    text: str


class Chat(Protocol):
    """What the bot needs of a chat service."""

    def messages(self) -> AsyncIterator[Message]:
        """Yield the messages as they arrive."""

    async def reply(self, message: Message, text: str) -> None:
        """Reply to a message, or edit the reply."""


class Bot:
    """Paints for many authors at the same time, and one picture at a time for each author."""

    def __init__(self, client: replicate.Client, chat: Chat) -> None:
        self._client = client
        self._chat = chat
        self._painting: dict[str, anyio.CancelScope] = {}

    async def run(self) -> None:
        """Serve until there are no more messages, and all pictures are painted."""
        async with anyio.create_task_group() as tasks:
            async for message in self._chat.messages():
                command, _, rest = message.text.partition(" ")
                running = self._painting.get(message.author)
                if command == "!stop" and running:
                    running.cancel()
                elif command == "!paint" and running:
                    await self._chat.reply(message, "one at a time, please; !stop ends the other")
                elif command == "!paint":
                    self._painting[message.author] = scope = anyio.CancelScope()
                    tasks.start_soon(self._paint, message, rest, scope)

    async def _paint(self, message: Message, prompt: str, scope: anyio.CancelScope) -> None:
        try:
            with scope:
                await self._chat.reply(message, await self._picture(message, prompt))
            if scope.cancelled_caught:  # the prediction is cancelled, too
                await self._chat.reply(message, "stopped")
        finally:
            del self._painting[message.author]

    async def _picture(self, message: Message, prompt: str) -> str:
        """Return the URL of a picture, or what went wrong. Meanwhile, show the progress."""
        try:
            async with self._client.start(MODEL, {"prompt": prompt}, timeout=120) as run:
                async for update in run.updates():
                    done = update.progress.percentage if update.progress else 0
                    await self._chat.reply(message, f"{update.status} {done:.0%}")
                [image] = await run.result()
        except exceptions.QueueFull as error:
            return f"there is much to do, try again in {error.retry_after:.0f} seconds"
        except exceptions.ReplicateException as error:
            return f"sorry: {error}"
        return str(image)


class Terminal:
    """Messages on the standard input, replies on the standard output."""

    async def messages(self) -> AsyncIterator[Message]:
        """Yield a message for each line."""
        async for line in anyio.wrap_file(sys.stdin):
            author, _, text = line.strip().partition(" ")
            yield Message(author, text)

    async def reply(self, message: Message, text: str) -> None:
        """Print a reply."""
        print(f"{message.author}: {text}", flush=True)


async def main() -> None:
    """Run the bot in the terminal."""
    async with replicate.Client(rate_limit=LIMIT) as client:
        await Bot(client, Terminal()).run()


if __name__ == "__main__":
    anyio.run(main)
