"""A WebSocket server and client, the node between them.

    python3 try.py [ADDRESS]        ADDRESS of the example, 127.0.0.9 by default; needs websockets
"""

import asyncio
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed, InvalidStatus

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.9"
MIB = 1 << 20
SIZES = [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, MIB, 16 * MIB]
CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 3000, 4000, 4999]
closes = asyncio.Queue()


async def attend(socket):
    """Echoes; `close CODE` closes; at the end the code it heard is kept."""
    path = socket.request.path
    try:
        if path == "/slow":
            # Nobody reads for a while: whoever sends much has to wait meanwhile.
            await asyncio.sleep(1)
            async for _ in socket:
                pass
            return
        async for message in socket:
            if isinstance(message, str) and message.startswith("close "):
                code = int(message.removeprefix("close "))
                await socket.close(code, f"as you like: {code}")
                return
            if path == "/count":
                await socket.send(str(len(message)))
            else:
                await socket.send(message)
    except ConnectionClosed:
        pass
    finally:
        await closes.put((path, socket.close_code, socket.close_reason))


def dial(path="/", tls=None, **options):
    port = 18443 if tls else 18080
    scheme = "wss" if tls else "ws"
    options = {"compression": None, "max_size": None, "open_timeout": 10, "host": ADDRESS} | options
    return connect(f"{scheme}://talk.acme.example{path}", port=port, ssl=tls, proxy=None, **options)


async def until_served():
    """Until the node has found out that the server is healthy."""
    for _ in range(200):
        try:
            async with dial("/probe"):
                return
        except InvalidStatus as error:
            assert error.response.status_code in (502, 503), error
        await asyncio.sleep(0.1)
    raise AssertionError("never served")


async def echoes(**options):
    async with dial(**options) as socket:
        for size in SIZES:
            text, octets = "ü" * (size // 2) + "x" * (size % 2), bytes(range(256)) * (size // 256 + 1)
            for message in (text, octets[:size]):
                await socket.send(message)
                assert await socket.recv() == message, size


async def heard(path, code):
    """What the server heard at the end of a connection to this path."""
    while True:
        said = await asyncio.wait_for(closes.get(), 10)
        if said[0] == path:
            assert said[1] == code, (said, code)
            return


async def main():
    server = await serve(attend, ADDRESS, 18000, max_size=None, ping_interval=None)
    await until_served()

    await echoes()
    print("text and octets of all sizes up to 16 MiB")
    await echoes(compression="deflate")
    print("the same, compressed")
    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    await echoes(tls=tls, server_hostname="talk.acme.example")
    print("the same, over TLS")

    async with dial() as socket:

        async def pieces():
            for number in range(50):
                # A control frame between the fragments of a message (RFC 6455 §5.4).
                pong = await socket.ping(b"between %d" % number)
                yield b"%d," % number
                await asyncio.wait_for(pong, 10)

        await socket.send(pieces())
        assert await socket.recv() == b"".join(b"%d," % number for number in range(50))
    print("fragments, with pings between them")

    for code in CODES:
        async with dial(f"/ours/{code}") as socket:
            await socket.close(code, "done")
        await heard(f"/ours/{code}", code)
        async with dial(f"/theirs/{code}") as socket:
            await socket.send(f"close {code}")
            try:
                await asyncio.wait_for(socket.recv(), 10)
                raise AssertionError("it was to be closed")
            except ConnectionClosed:
                assert (socket.close_code, socket.close_reason) == (code, f"as you like: {code}")
    print("close codes from either side")

    async with dial("/gone") as socket:
        await socket.send("hello")
        assert await socket.recv() == "hello"
        socket.transport.abort()
    await heard("/gone", 1006)
    print("a client that is gone is told to the server at once")

    async with dial("/slow") as socket:

        async def much():
            for _ in range(64):
                await socket.send(b"x" * MIB)

        sending = asyncio.create_task(much())
        await asyncio.sleep(0.5)
        assert not sending.done(), "64 MiB went to nobody"
        await asyncio.wait_for(sending, 60)
    print("a slow reader slows the sender")

    async def one(number):
        async with dial("/count") as socket:
            for turn in range(20):
                await socket.send(b"x" * (number * turn))
                assert await socket.recv() == str(number * turn)

    await asyncio.gather(*(one(number) for number in range(200)))
    print("200 connections at a time")

    server.close()
    await server.wait_closed()


asyncio.run(main())
