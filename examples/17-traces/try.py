"""A collector, an application, and requests whose traces say whether they are told.

    python3 try.py [ADDRESS]        ADDRESS of the example, 127.0.0.9 by default
"""

import http.client
import http.server
import json
import queue
import sys
import threading
import time

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.9"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

documents = queue.Queue()


class Server(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, body):
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        """The application: the parent that it was given."""
        self.answer(self.headers["traceparent"].encode())

    def do_POST(self):
        """The collector."""
        body = self.rfile.read(int(self.headers["content-length"]))
        assert self.path == "/v1/traces", self.path
        assert self.headers["content-type"] == "application/json"
        documents.put(json.loads(body))
        self.answer(b"{}")

    def log_message(self, *_):
        pass


def serve(port):
    server = http.server.ThreadingHTTPServer((ADDRESS, port), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def ask(path, flags):
    """The parent that the application was given."""
    connection = http.client.HTTPConnection(ADDRESS, 18080, timeout=10)
    parent = f"00-{TRACE}-{PARENT}-{flags}"
    connection.request("GET", path, headers={"host": "shop.acme.example", "traceparent": parent})
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    assert answer.status == 200, answer.status
    return body


serve(4318)
serve(18001)
until = time.monotonic() + 20
while True:
    try:
        ask("/ready", "00")
        break
    except (OSError, AssertionError):
        assert time.monotonic() < until, "nobody serves"
        time.sleep(0.05)

assert ask("/quiet", "00") == f"00-{TRACE}-{PARENT}-00", "nothing is told, so nothing is changed"
given = ask("/told?secret=1", "01")
document = documents.get(timeout=20)
resource = document["resourceSpans"][0]
names = {one["key"]: one["value"]["stringValue"] for one in resource["resource"]["attributes"]}
assert names["service.name"] == "sealane" and names["sealane.site"] == "edge.fabric", names
spans = resource["scopeSpans"][0]["spans"]
span, tried = spans
assert (span["traceId"], span["parentSpanId"]) == (TRACE, PARENT), span
assert (tried["traceId"], tried["parentSpanId"]) == (TRACE, span["spanId"]), tried
assert given == f"00-{TRACE}-{tried['spanId']}-01", given
assert int(span["endTimeUnixNano"]) >= int(span["startTimeUnixNano"]), span
attributes = {one["key"]: list(one["value"].values())[0] for one in span["attributes"]}
assert attributes["url.path"] == "/told", attributes
assert attributes["http.response.status_code"] == "200", attributes
assert attributes["sealane.service"] == "shop.shop.acme", attributes
assert "secret" not in json.dumps(document)
print("as it should be")
