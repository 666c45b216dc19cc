"""Serves until standard input ends: whoever has started it lives no more, or wants it no more."""

from __future__ import annotations

import asyncio
import gc
import os
import sys

from service_kit.kafka.memory_broker.server import serve
from service_kit.kafka.memory_broker.topics import Topics


async def _main(topics: Topics) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def read() -> None:
        if not os.read(sys.stdin.fileno(), 1_024):
            ended.set()

    loop.add_reader(sys.stdin, read)
    await serve(topics, ended)


if __name__ == "__main__":
    made = Topics()
    for word in sys.argv[1:]:
        name, partitions, *settings = word.split(":")
        made.create(name, int(partitions), dict(one.split("=", 1) for one in settings))
    # A pause for the collector is everybody's, and hardly anything here goes in circles.
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)
    asyncio.run(_main(made))
