#!/usr/bin/env python3
"""A relay in front of a server, with or without TLS on this side.

    python3 relay.py --to HOST:PORT [--host ADDRESS] [--cert FILE --key FILE [--client-ca FILE]]

Prints its port once it listens, and ends when its stdin is closed. With --client-ca it takes only those who show a
certificate of that authority.
"""

import argparse
import asyncio
import contextlib
import ssl
import sys


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, ssl.SSLError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError, ssl.SSLError, RuntimeError):
        writer.close()


def context(options: argparse.Namespace) -> ssl.SSLContext | None:
    if not options.cert:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(options.cert, options.key)
    if options.client_ca:
        made.verify_mode = ssl.CERT_REQUIRED
        made.load_verify_locations(options.client_ca)
    return made


async def serve(options: argparse.Namespace) -> None:
    host, _, port = options.to.rpartition(":")

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

    server = await asyncio.start_server(relay, options.host, 0, ssl=context(options))
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--to", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--cert")
    parser.add_argument("--key")
    parser.add_argument("--client-ca")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
