"""Clients with certificates and without, at hosts that ask for them and at one that does not.

    python3 try.py [ADDRESS]        ADDRESS of the example, 127.0.0.9 by default; needs aioquic
"""

import asyncio
import http.client
import http.server
import pathlib
import socket
import ssl
import sys
import threading
import time

from aioquic.asyncio.client import connect as connect_quic
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.9"
SHOWN = pathlib.Path(__file__).parent / "shown"


class Till(http.server.BaseHTTPRequestHandler):
    """Answers with what it was told of the client."""

    def do_GET(self):
        told = self.headers.get_all("x-forwarded-client-cert", [])
        body = "\n".join(told).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def connect(name, shows, newest):
    """A connection for a host, with the certificate of a client."""
    context = ssl.create_default_context()
    # The example's own certificate is trusted by nobody.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = newest
    if shows:
        context.load_cert_chain(SHOWN / f"{shows}.pem")
    raw = socket.create_connection((ADDRESS, 18443), timeout=10)
    return context.wrap_socket(raw, server_hostname=f"{name}.acme.example")


def ask(name, shows=None, path="/", to=None, newest=ssl.TLSVersion.TLSv1_3):
    """Status and body, or the alert."""
    try:
        with connect(name, shows, newest) as stream:
            host = f"{to or name}.acme.example"
            forged = "x-forwarded-client-cert: Hash=forged\r\n"
            stream.sendall(f"GET {path} HTTP/1.1\r\nhost: {host}\r\n{forged}\r\n".encode())
            reply = http.client.HTTPResponse(stream)
            reply.begin()
            return reply.status, reply.read().decode()
    except ssl.SSLError as error:
        return error.reason, ""


class OverQuic(QuicConnectionProtocol):
    """One request over HTTP/3: its answer, or the alert that ends the connection."""

    def ask(self, host, path):
        self.http = H3Connection(self._quic)
        self.status, self.body, self.done = None, b"", self._loop.create_future()
        head = {":method": "GET", ":scheme": "https", ":authority": host, ":path": path}
        head["x-forwarded-client-cert"] = "Hash=forged"
        head = [(name.encode(), value.encode()) for name, value in head.items()]
        stream = self._quic.get_next_available_stream_id()
        self.http.send_headers(stream, head, end_stream=True)
        self.transmit()
        return self.done

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated) and not self.done.done():
            # RFC 9001 4.8
            self.done.set_result((f"alert {event.error_code - 0x100}", ""))
        for event in self.http.handle_event(event):
            if isinstance(event, HeadersReceived):
                self.status = int(dict(event.headers)[b":status"])
            elif isinstance(event, DataReceived):
                self.body += event.data
            if event.stream_ended:
                self.done.set_result((self.status, self.body.decode()))


async def over_quic(name, shows, path, to):
    settings = QuicConfiguration(
        alpn_protocols=["h3"],
        server_name=f"{name}.acme.example",
        verify_mode=ssl.CERT_NONE,
        is_client=True,
    )
    if shows:
        settings.load_cert_chain(SHOWN / f"{shows}.pem")
    opening = connect_quic(
        ADDRESS, 18443, configuration=settings, create_protocol=OverQuic, wait_connected=False
    )
    async with opening as client:
        asked = client.ask(f"{to or name}.acme.example", path)
        return await asyncio.wait_for(asked, 10)


def ask3(name, shows=None, path="/", to=None):
    """As `ask`, over HTTP/3."""
    return asyncio.run(over_quic(name, shows, path, to))


def expect(status, got):
    assert got[0] == status, f"{got} instead of {status}"
    return got[1]


server = http.server.ThreadingHTTPServer((ADDRESS, 18001), Till)
threading.Thread(target=server.serve_forever, daemon=True).start()
until = time.monotonic() + 20
while True:
    try:
        if ask("open")[0] == 200:
            break
    except OSError:
        pass
    assert time.monotonic() < until, "nobody serves"
    time.sleep(0.05)

# Required.
told = expect(200, ask("till", "till-7"))
assert told.startswith("Hash="), told
assert told.endswith('Subject="CN=till 7";URI=spiffe://acme.example/till/7;DNS=till-7.acme.example'), told
expect("TLSV13_ALERT_CERTIFICATE_REQUIRED", ask("till"))
expect("SSLV3_ALERT_CERTIFICATE_REVOKED", ask("till", "till-13"))
expect("TLSV1_ALERT_UNKNOWN_CA", ask("till", "stranger"))
expect(403, ask("till", "desk-1"))
old = ssl.TLSVersion.TLSv1_2
expect(200, ask("till", "till-7", newest=old))
expect("SSLV3_ALERT_CERTIFICATE_REVOKED", ask("till", "till-13", newest=old))
assert isinstance(ask("till", newest=old)[0], str)

# Wanted: who shows none that is valid is anybody.
for shows, status in [(None, 403), ("stranger", 403), ("till-7", 200), ("till-13", 200)]:
    expect(status, ask("desk", shows, "/drawer"))
    assert expect(200, ask("desk", shows)) == ""

# A connection for one host is none for another that asks for more.
expect(421, ask("open", "till-7", to="till"))
expect(421, ask("desk", "till-7", to="till"))
expect(200, ask("till", "till-7", to="open"))

# Over HTTP/3 it is all the same.
assert expect(200, ask3("till", "till-7")) == told
# certificate_required, certificate_revoked, unknown_ca
expect("alert 116", ask3("till"))
expect("alert 44", ask3("till", "till-13"))
expect("alert 48", ask3("till", "stranger"))
expect(403, ask3("till", "desk-1"))
for shows, status in [(None, 403), ("stranger", 403), ("till-7", 200)]:
    expect(status, ask3("desk", shows, "/drawer"))
    assert expect(200, ask3("desk", shows)) == ""
expect(421, ask3("desk", "till-7", to="till"))
print("as it should be")
