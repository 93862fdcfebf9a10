"""A TCP proxy that makes a server distant: every byte is late, in both directions, and bandwidth stays what it is.

``python -m tenure.bench.scale.delay LISTEN_PORT SERVER_PORT ONE_WAY_MS``. A process of its own, so that what it costs
falls on nobody who is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

CHUNK_BYTES = 256 * 1024
QUEUED_CHUNKS = 1_024
HOST = "127.0.0.1"


async def serve(listen_port: int, server_port: int, one_way_s: float) -> None:
    """Forward until cancelled; say so on stdout once it listens."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            there, back = await asyncio.open_connection(HOST, server_port)
            try:
                await asyncio.gather(_pump(reader, back, one_way_s), _pump(there, writer, one_way_s))
            finally:
                back.close()
        writer.close()

    serving: set[asyncio.Task[None]] = set()  # asyncio itself holds on to no task

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(forward(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    server = await asyncio.start_server(accept, HOST, listen_port)
    print("listening", flush=True)
    await server.serve_forever()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, one_way_s: float) -> None:
    queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED_CHUNKS)
    now = asyncio.get_running_loop().time

    async def read() -> None:
        while True:
            chunk = await reader.read(CHUNK_BYTES)
            await queue.put((now() + one_way_s, chunk))
            if not chunk:
                return

    reading = asyncio.create_task(read())
    try:
        while True:
            due, chunk = await queue.get()
            await asyncio.sleep(max(0.0, due - now()))
            if not chunk:
                writer.write_eof()
                return
            writer.write(chunk)
            await writer.drain()
    finally:
        reading.cancel()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1_000))
