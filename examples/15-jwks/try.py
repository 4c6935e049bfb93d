"""An issuer of tokens that changes its keys, and a node that hears of it.

    python3 try.py [ADDRESS]        ADDRESS of the example, 127.0.0.9 by default
    python3 try.py ADDRESS kept     after the node was started again: nobody publishes keys now

The tokens below were signed with keys that are gone; they are good until 2125. One more is signed here,
since its issuer is known by the address.
"""

import base64
import hashlib
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

# RSA of 2,048 bits, which is no secret.
P = int(
    "dd6f2578e5a7b7ff2f75a49ff2707369a574ac1d01b7df9a6acdc400971efae22502f9beb6ea51bcd8ed3b53db41387e"
    "1b4529a4bf468e89eb8db2441fd347e1e13646ac6afb7682a0099a7f4f010050b1860981949f7ba0c2b53d29b163b9e4"
    "556b0b03220fe4a2f7f167e7193419f871736f42957faa23d9ff0cc319afc37b",
    16,
)
Q = int(
    "ba50240ff36361f95761514339dfcca0f2638c3e0e52f0303e94a65ba53882c8d430ae5b2a6b34743efce5516625b58e"
    "86fe51dcd060bfaf02bc743883af78cac248fd8b869f540fc0fc19e013221339f6fce1389f382e3681d72357d6edc3ca"
    "9fca74bd5ba69916aed70d11edddef2dcf5d9d61433bbce44f53f87aa0c4ee4b",
    16,
)
ISSUER = f"http://{ADDRESS}:18009"

published = ["one"]
fetched = []
# What the OpenID configuration says of whose it is.
said = ["https://somebody.example"]


def encode(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def found_key():
    number = encode((P * Q).to_bytes(256, "big"))
    return {"kty": "RSA", "kid": "found", "use": "sig", "alg": "RS256", "n": number, "e": "AQAB"}


def found_token():
    """RS256 (RFC 7518 3.3), which is a power of what RFC 8017 9.2 makes of the digest."""
    parts = [{"alg": "RS256", "kid": "found"}, {"iss": ISSUER, "sub": "ann", "exp": 4900000000}]
    signed = ".".join(encode(json.dumps(part).encode()) for part in parts)
    sha256 = bytes.fromhex("3031300d060960864801650304020105000420")
    tail = sha256 + hashlib.sha256(signed.encode()).digest()
    block = b"\x00\x01" + b"\xff" * (253 - len(tail)) + b"\x00" + tail
    private = pow(65537, -1, (P - 1) * (Q - 1))
    signature = pow(int.from_bytes(block, "big"), private, P * Q).to_bytes(256, "big")
    return f"{signed}.{encode(signature)}"


TOKENS["found"] = found_token()


class Server(http.server.BaseHTTPRequestHandler):
    """The issuer, and the application."""

    def do_GET(self):
        if self.path == "/keys":
            fetched.append(list(published))
            body = json.dumps({"keys": [KEYS[name] for name in published]}).encode()
        elif self.path == "/.well-known/openid-configuration":
            body = json.dumps({"issuer": said[0], "jwks_uri": f"{ISSUER}/found"}).encode()
        elif self.path == "/found":
            body = json.dumps({"keys": [found_key()]}).encode()
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
    name = "found" if token == "found" else "desk"
    connection.request("GET", "/", headers={"host": f"{name}.acme.example", **bearer})
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
    assert ask("found") == 200
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
    # Whose configuration it is has to be right.
    assert ask("found") == 401
    said[0] = ISSUER
    until(200, "found")
print("as it should be")
