"""One tenant's clients ask as fast as they can; another's get their answers.

    python3 try.py [ADDRESS]        ADDRESS of the example, 127.0.0.9 by default
"""

import http.client
import http.server
import multiprocessing
import socket
import sys
import threading
import time

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.9"
# Clients of blue, and requests that each sends before it waits for an answer.
CLIENTS, AT_ONCE = 4, 32
FORK = multiprocessing.get_context("fork")
# Requests of acme while they do.
QUIET = 100


class Cart(http.server.BaseHTTPRequestHandler):
    """The application of acme."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"acme\n")

    def log_message(self, *_):
        pass


def ask(host):
    """The answer to one request, over a connection of its own."""
    connection = http.client.HTTPConnection(ADDRESS, 18080, timeout=30)
    connection.request("GET", "/", headers={"host": host})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body


class Flood:
    """Clients of blue, until it is over: a process each, so that they do not wait for ours."""

    def __init__(self):
        self.over = FORK.Event()
        self.answers = FORK.Array("L", CLIENTS)
        run = [
            FORK.Process(target=self.run, args=(nth,), daemon=True) for nth in range(CLIENTS)
        ]
        self.clients = run
        for client in run:
            client.start()

    def run(self, nth):
        requests = b"GET / HTTP/1.1\r\nhost: cart.blue.example\r\n\r\n" * AT_ONCE
        with socket.create_connection((ADDRESS, 18080), timeout=30) as client:
            while not self.over.is_set():
                client.sendall(requests)
                heads, before = 0, b""
                while heads < AT_ONCE:
                    piece = client.recv(65536)
                    assert piece, "the connection ended"
                    # A head that begins in one piece and ends in the next counts once.
                    piece = before + piece
                    heads += piece.count(b"HTTP/1.1 200 ")
                    before = piece[-12:]
                self.answers[nth] += AT_ONCE

    def end(self):
        self.over.set()
        for client in self.clients:
            client.join()


threading.Thread(
    target=http.server.ThreadingHTTPServer((ADDRESS, 18001), Cart).serve_forever, daemon=True
).start()
# Until the node serves and knows that the endpoint is well, which is looked at more than once.
end, well = time.monotonic() + 30, 0
while well < 20:
    try:
        well = well + 1 if ask("cart.acme.example") == (200, "acme\n") else 0
    except OSError:
        well = 0
    assert time.monotonic() < end, "it never served"
    time.sleep(0.05)

flood, longest = Flood(), 0.0
for _ in range(QUIET):
    began = time.monotonic()
    answer = ask("cart.acme.example")
    assert answer == (200, "acme\n"), answer
    longest = max(longest, time.monotonic() - began)
flood.end()
assert all(flood.answers), "each of blue's clients was served, too"
print(f"{QUIET} of acme answered, the slowest in {longest * 1000:.0f} ms,")
print(f"beside {sum(flood.answers)} of blue")
