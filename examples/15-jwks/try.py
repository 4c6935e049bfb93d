"""An issuer of tokens that changes its keys, and a node that hears of it.

    python3 try.py [ADDRESS]        ADDRESS of the example, 127.0.0.9 by default
    python3 try.py ADDRESS kept     after the node was started again: nobody publishes keys now

The tokens were signed with keys that are gone; they are good until 2125.
"""

import http.client
import http.server
import json
import sys
import threading
import time

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.9"
KEPT = sys.argv[2:] == ["kept"]

KEYS = {
    "one": {"kty": "OKP", "crv": "Ed25519", "kid": "one", "use": "sig", "x": "XZiMAF5Cq_LY_G4dIw_-m5piZ_HdUNq03oTsXR6WW4g"},
    "two": {"kty": "OKP", "crv": "Ed25519", "kid": "two", "use": "sig", "x": "1mwjMPrFGWZPtOi0ExL59cssmkTCTplGrvsmxCMScSA"},
}
TOKENS = {
    "one": (
        "eyJhbGciOiJFZERTQSIsImtpZCI6Im9uZSJ9.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUiLCJzdWI"
        "iOiJhbm4iLCJleHAiOjQ5MDAwMDAwMDB9.LporJ1AVur2dC9aPyC16YmU0zKcNtlNHxj1DA6pAVJYl7a"
        "XB1-wrNe5sJBnfaVf42JIqDwsUxzlKCTX8yw2gDw"
    ),
    "two": (
        "eyJhbGciOiJFZERTQSIsImtpZCI6InR3byJ9.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUiLCJzdWI"
        "iOiJhbm4iLCJleHAiOjQ5MDAwMDAwMDB9.cAdvBliiKjKuBKoSgGnw5ExPyMLcZw69KugYrzLr3h5RVd"
        "-vGo4ydsmLD-8UrWb4Pegn6semwLImwRdzlY_TBA"
    ),
}

published = ["one"]
fetched = []


class Server(http.server.BaseHTTPRequestHandler):
    """The issuer, and the application."""

    def do_GET(self):
        if self.path == "/keys":
            fetched.append(list(published))
            body = json.dumps({"keys": [KEYS[name] for name in published]}).encode()
        else:
            body = b"hello\n"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve(port):
    server = http.server.ThreadingHTTPServer((ADDRESS, port), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def ask(token):
    connection = http.client.HTTPConnection(ADDRESS, 18080, timeout=10)
    bearer = {"authorization": f"Bearer {TOKENS[token]}"} if token else {}
    connection.request("GET", "/", headers={"host": "desk.acme.example", **bearer})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def until(status, token):
    """Until it is so, but not for ever."""
    end, last = time.monotonic() + 30, None
    while time.monotonic() < end:
        try:
            last = ask(token)
        except OSError as error:
            last = error
        if last == status:
            return
        time.sleep(0.1)
    raise AssertionError(f"{token}: {last} instead of {status}")


serve(18001)
if KEPT:
    until(200, "two")
    assert ask("one") == 401, "that key is withdrawn"
else:
    serve(18009)
    until(200, "one")
    assert ask(None) == 401
    # The issuer has a new key. The first token that names it is the node's reason to ask again.
    published.append("two")
    until(200, "two")
    assert ask("one") == 200
    # The old one is withdrawn. A token with a key that nobody has makes the node ask again, but
    # not once for each.
    published.remove("one")
    TOKENS["three"] = TOKENS["one"].replace(TOKENS["one"].split(".")[0], "eyJhbGciOiJFZERTQSIsImtpZCI6InRocmVlIn0")
    before = len(fetched)
    for _ in range(50):
        assert ask("three") == 401
    assert len(fetched) <= before + 1, fetched
    until(401, "one")
    assert ask("two") == 200
print("as it should be")
