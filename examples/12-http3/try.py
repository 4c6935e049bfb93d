"""An endpoint and an HTTP/3 client, the node between them.

    python3 try.py [ADDRESS]        ADDRESS of the example, 127.0.0.9 by default; needs aioquic
"""

import asyncio
import http.client
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import StreamReset

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.9"
NAME = "talk.acme.example"
MIB = 1 << 20


class Endpoint(BaseHTTPRequestHandler):
    """GET /N answers with N octets, POST with how many came; a WebSocket is echoed as octets."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.headers.get("upgrade") == "websocket":
            self.send_response(101)
            self.send_header("connection", "upgrade")
            self.send_header("upgrade", "websocket")
            self.end_headers()
            self.close_connection = True
            while piece := self.connection.recv(65536):
                self.connection.sendall(piece)
            return
        self.answer(b"x" * int(self.path[1:] or 0))

    def do_POST(self):
        total = 0
        if length := self.headers.get("content-length"):
            total = len(self.rfile.read(int(length)))
        else:
            while size := int(self.rfile.readline(), 16):
                total += len(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
        self.answer(str(total).encode())

    def answer(self, body):
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.send_header("alt-svc", 'h3=":1"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    # A hundred requests come at once; five connections may wait by default.
    request_queue_size = 128


class Client(QuicConnectionProtocol):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = H3Connection(self._quic)
        self.waiting = {}

    def quic_event_received(self, event):
        if isinstance(event, StreamReset) and event.stream_id in self.waiting:
            self.over(event.stream_id, RuntimeError(f"reset: {event.error_code:#x}"))
        for event in self.http.handle_event(event):
            if event.stream_id not in self.waiting:
                continue
            headers, body, _ = self.waiting[event.stream_id]
            if isinstance(event, HeadersReceived):
                headers.update({k.decode(): v.decode() for k, v in event.headers})
            elif isinstance(event, DataReceived):
                body.extend(event.data)
            if event.stream_ended:
                self.over(event.stream_id, None)

    def over(self, stream, error):
        headers, body, done = self.waiting.pop(stream)
        if error:
            done.set_exception(error)
        else:
            done.set_result((headers, bytes(body)))

    async def ask(self, method, path, body=b"", more=(), pieces=()):
        stream = self._quic.get_next_available_stream_id()
        done = self._loop.create_future()
        self.waiting[stream] = ({}, bytearray(), done)
        head = [(":method", method), (":scheme", "https"), (":authority", NAME), (":path", path)]
        head = [(k.encode(), v.encode()) for k, v in head + list(more)]
        self.http.send_headers(stream, head, end_stream=not (body or pieces))
        for piece in pieces:
            self.http.send_data(stream, piece, end_stream=False)
            self.transmit()
            await asyncio.sleep(0.01)
        if body or pieces:
            self.http.send_data(stream, body, end_stream=True)
        self.transmit()
        return await asyncio.wait_for(done, 30)


def configuration(name=NAME):
    return QuicConfiguration(
        alpn_protocols=["h3"], server_name=name, verify_mode=ssl.CERT_NONE, is_client=True
    )


def over_tls(host, path="/5"):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = http.client.HTTPSConnection(ADDRESS, 18443, context=context, timeout=10)
    # The server name is the host's, not the address.
    client._create_connection = lambda *_: __import__("socket").create_connection((ADDRESS, 18443))
    client.host = host
    client.request("GET", path, headers={"host": host})
    answer = client.getresponse()
    answer.read()
    return answer.status, answer.getheader("alt-svc")


def until_served():
    for _ in range(200):
        try:
            status, _ = over_tls(NAME)
            if status == 200:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit("the node does not serve")


async def main():
    assert over_tls(NAME) == (200, 'h3=":443"; ma=86400'), over_tls(NAME)
    assert over_tls("plain.acme.example") == (200, None), over_tls("plain.acme.example")
    async with connect(
        ADDRESS, 18443, configuration=configuration(), create_protocol=Client
    ) as client:
        headers, body = await client.ask("GET", "/5")
        assert (headers[":status"], body) == ("200", b"xxxxx"), (headers, body)
        assert "alt-svc" not in headers, headers
        _, body = await client.ask("GET", f"/{4 * MIB}")
        assert len(body) == 4 * MIB
        length = [("content-length", str(2 * MIB))]
        for more in (length, []):
            _, body = await client.ask("POST", "/", b"y" * (2 * MIB), more)
            assert body == str(2 * MIB).encode(), body
        many = await asyncio.gather(*(client.ask("GET", f"/{n}") for n in range(100)))
        told = [(headers[":status"], len(body)) for headers, body in many]
        assert told == [("200", n) for n in range(100)], told
        headers, _ = await client.ask("GET", "/" + "z" * 9000)
        assert headers[":status"] == "414", headers

        # Another address, as behind a NAT that forgot: the connection goes on.
        for _ in range(4):
            transport, _ = await client._loop.create_datagram_endpoint(
                lambda: client, local_addr=("::", 0)
            )
            client.connection_made(transport)
            _, body = await client.ask("GET", "/7")
            assert body == b"xxxxxxx", body

        upgrade = [(":protocol", "websocket"), ("sec-websocket-version", "13")]
        stream = client.ask("CONNECT", "/", b"last", upgrade, [b"first ", b"second "])
        headers, body = await stream
        assert (headers[":status"], body) == ("200", b"first second last"), (headers, body)

    for name in ("plain.acme.example", "nobody.acme.example"):
        try:
            async with connect(
                ADDRESS, 18443, configuration=configuration(name), create_protocol=Client
            ):
                raise SystemExit(f"{name} is served over HTTP/3")
        except ConnectionError:
            pass


server = Server((ADDRESS, 18000), Endpoint)
threading.Thread(target=server.serve_forever, daemon=True).start()
until_served()
asyncio.run(main())
print("good")
