"""Two endpoints, one of which has four times as much to do with each request.

    python3 try.py [ADDRESS]        ADDRESS of the example, 127.0.0.9 by default
"""

import base64
import http.client
import http.server
import struct
import sys
import threading
import time

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.9"


def serve(port, utilization):
    """An application that says how loaded it is: as text in a header, or in octets in a trailer."""
    text = f"TEXT cpu_utilization={utilization},rps_fractional=100"
    # xds.data.orca.v3.OrcaLoadReport: cpu_utilization is field 1, rps_fractional field 6.
    octets = struct.pack("<BdBd", 1 << 3 | 1, utilization, 6 << 3 | 1, 100)
    octets = base64.b64encode(octets).rstrip(b"=")

    class Shop(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self):
            body = str(port).encode()
            self.send_response(200)
            if port == 18001:
                self.send_header("endpoint-load-metrics", text)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            else:
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"%x\r\n%s\r\n0\r\n" % (len(body), body))
                self.wfile.write(b"endpoint-load-metrics-bin: %s\r\n\r\n" % octets)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer((ADDRESS, port), Shop)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def ask():
    """Who answered."""
    connection = http.client.HTTPConnection(ADDRESS, 18080, timeout=10)
    connection.request("GET", "/", headers={"host": "shop.acme.example"})
    answer = connection.getresponse()
    port = answer.read().decode()
    connection.close()
    assert answer.status == 200, answer.status
    assert answer.getheader("endpoint-load-metrics") is None, "that is not for clients"
    return port


serve(18001, 0.2)
serve(18002, 0.8)
# Until both are known, and for long enough, one request in five goes to the one with less to spare.
end, share = time.monotonic() + 30, None
while time.monotonic() < end:
    try:
        answers = [ask() for _ in range(400)]
    except (OSError, AssertionError):
        time.sleep(0.05)
        continue
    share = answers.count("18002") / len(answers)
    if 0.1 < share < 0.3:
        print("as it should be")
        sys.exit()
raise SystemExit(f"the one with less to spare got {share} of all requests")
