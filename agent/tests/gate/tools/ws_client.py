"""A WebSocket client: messages of all sizes there and back, then waits to be told to go. Says how it was closed."""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def main(url):
    async with connect(url, max_size=None) as socket:
        for size in (0, 1, 125, 126, 65535, 65536, 3_000_000):
            message = bytes(n % 251 for n in range(size)) if size < 100_000 else b"x" * size
            await socket.send(message)
            assert await socket.recv() == message, size
        await socket.send("text ☺")
        assert await socket.recv() == "text ☺"
        await (await socket.ping())
        print("echoed", flush=True)
        try:
            await socket.recv()
        except ConnectionClosed as closed:
            print("closed", closed.rcvd.code if closed.rcvd else None, flush=True)


asyncio.run(main(sys.argv[1]))
