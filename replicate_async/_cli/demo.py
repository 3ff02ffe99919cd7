"""The command `demo`: models run end to end, without a token, a network or a bill."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
import time
from pathlib import Path
from typing import TextIO

import anyio

from replicate_async import Client, exceptions
from replicate_async.testing import Emulator

from .terminal import say

_WIDTH = 78
_BAR = 24


def execute(options: argparse.Namespace) -> int:
    """Show everything, and return the exit code."""
    os.environ["no_proxy"] = "*"  # the proxies of the environment do not lead to this machine
    try:
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return _cannot_save(options.output, error)
    try:
        anyio.run(_demo, Paper(sys.stdout), options.output)
    except KeyboardInterrupt:
        return 130
    except exceptions.FileNotSaved as error:
        return _cannot_save(options.output, error)
    return 0


def _cannot_save(directory: Path, error: OSError) -> int:
    say(f"cannot save to {directory}: {error.strerror or error}")
    return 1


class Paper:
    """Prints plain lines and, on a terminal, one line that changes."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._live: bool = file.isatty()
        self._chapter: int = 0

    def chapter(self, title: str) -> None:
        """Begin a numbered part."""
        self._chapter += 1
        print(f"\n{self._chapter}. {title}", file=self._file, flush=True)

    def line(self, text: str = "") -> None:
        """Print a line of a part."""
        print(f"   {text}".rstrip(), file=self._file, flush=True)

    def text(self, text: str) -> None:
        """Print a longer text with its line breaks."""
        for paragraph in text.strip().splitlines():
            for line in textwrap.wrap(paragraph, _WIDTH - 3) or [""]:
                self.line(line)

    def progress(self, share: float, text: str) -> None:
        """Show progress: in place on a terminal, else on a new line."""
        done = round(_BAR * share)
        shown = f"   {share:4.0%} [{'#' * done}{'.' * (_BAR - done)}] {text}"
        if self._live:
            print(f"\r{shown:<{_WIDTH}}", end="", file=self._file, flush=True)
        else:
            print(shown, file=self._file, flush=True)

    def end_progress(self) -> None:
        """End the line that changes."""
        if self._live:
            print(file=self._file)


async def _demo(paper: Paper, directory: Path) -> None:
    async with Emulator() as emulator:
        paper.text(
            f"An emulator of Replicate's API is listening at {emulator.url}."
            "\nNothing leaves this machine, and nothing is billed."
        )
        async with Client(emulator.token, base_url=emulator.url) as client:
            await _show(client, paper, directory)
            stats = client.stats
        paper.line()
        paper.text(
            f"Done: {stats.created} predictions were created, for as many runs. Next:"
            "\n- serve the emulator to your own code: replicate-async emulator"
            "\n- read README.md for the rest"
        )


async def _show(client: Client, paper: Paper, directory: Path) -> None:
    paper.chapter('Run a model: run("replicate/hello-world", {"text": "Alice"})')
    began = time.perf_counter()
    paper.line(await client.run("replicate/hello-world", {"text": "Alice"}))
    paper.line(f"({_milliseconds(began)} from call to result)")

    paper.chapter("Watch a long one: predictions.create(...), then updates()")
    sleeper = await client.models.get("emulator/sleeper")
    prediction = await client.predictions.create(
        sleeper.latest_version, {"seconds": 2.5, "steps": 10}
    )
    paper.line(f"prediction {prediction.id}")
    async for update in prediction.updates():
        paper.progress(update.progress.percentage if update.progress else 0.0, update.status)
    paper.end_progress()
    paper.line(prediction.output)

    paper.chapter("Ask a language model: run() returns its tokens")
    tokens = await client.run(
        "emulator/writer", {"prompt": "Tell me about the sea", "max_tokens": 60, "style": "verse"}
    )
    paper.text("".join(tokens))

    paper.chapter("Paint a picture, and save it")
    [image] = await client.run(
        "emulator/painter", {"prompt": "a quiet valley at dawn", "seed": 11}, timeout=60
    )
    saved = await image.save(directory / "painting.png")
    paper.line(f"saved to {saved}")

    paper.chapter("Hand the picture to another model")
    paper.line(await client.run("emulator/describer", {"image": image}))

    paper.chapter("See a failure: it is raised, with its prediction")
    try:
        await client.run("emulator/failer", {"error": "The picture is too large. (E1001)"})
    except exceptions.ModelError as error:
        message, *_ = str(error).splitlines()
        paper.text(f"{type(error).__name__}: {message}")
        paper.line(f".code is {error.code}, .prediction.logs is {error.prediction.logs!r}")

    paper.chapter("List what was run, newest first: async for ... in predictions.list()")
    async for listed in client.predictions.list():
        seconds = listed.metrics.get("predict_time", 0.0)
        paper.line(f"{listed.id}  {listed.model or '':<24}{listed.status:<10} {seconds:6.2f} s")


def _milliseconds(since: float) -> str:
    return f"{(time.perf_counter() - since) * 1000:.0f} ms"
