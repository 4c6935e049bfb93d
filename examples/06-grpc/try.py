"""A gRPC server and client with all four kinds of calls, the node between them.

    python3 try.py [ADDRESS]        ADDRESS of the example, 127.0.0.9 by default; needs grpcio

Messages are plain octets: no .proto, no generated code.
"""

import sys
import threading
import time
from concurrent import futures

import grpc

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.9"
SERVICE = "/example.Chat/"


def same(octets):
    return octets


class Chat(grpc.GenericRpcHandler):
    def service(self, details):
        method = details.method.removeprefix(SERVICE)
        kinds = {
            "Say": (grpc.unary_unary_rpc_method_handler, self.say),
            "Count": (grpc.unary_stream_rpc_method_handler, self.count),
            "Join": (grpc.stream_unary_rpc_method_handler, self.join),
            "Talk": (grpc.stream_stream_rpc_method_handler, self.talk),
        }
        if method not in kinds:
            return None
        handler, function = kinds[method]
        return handler(function, same, same)

    def say(self, words, context):
        asked = dict(context.invocation_metadata()).get("x-asked", "")
        context.set_trailing_metadata((("x-said", asked), ("x-octets-bin", b"\x00\xff")))
        if words == b"fail":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: ü %")
        if words == b"sleep":
            time.sleep(3)
        return words + b"!"

    def count(self, words, context):
        for number in range(5):
            yield words + b"%d" % number

    def join(self, pieces, context):
        return b"".join(pieces)

    def talk(self, pieces, context):
        for piece in pieces:
            yield piece.upper()


def fails(code, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except grpc.RpcError as error:
        assert error.code() == code, error
        return error
    raise AssertionError(f"{code} was expected")


def until_served(say):
    """Until the node has found out that the server is healthy, and stays by that."""
    good = 0
    for _ in range(200):
        try:
            assert say(b"hello", timeout=5) == b"hello!"
            good += 1
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE, error
            good = 0
        if good == 20:
            return
        time.sleep(0.1)
    raise AssertionError("never served for two seconds in a row")


def main():
    server = grpc.server(futures.ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers((Chat(),))
    assert server.add_insecure_port(f"{ADDRESS}:18000")
    server.start()
    name = [("grpc.default_authority", "chat.acme.example")]
    channel = grpc.insecure_channel(f"{ADDRESS}:18080", options=name)
    say = channel.unary_unary(SERVICE + "Say", same, same)
    until_served(say)

    answer, call = say.with_call(b"hi", metadata=(("x-asked", "42"),), timeout=5)
    said = dict(call.trailing_metadata())
    assert (answer, said["x-said"], said["x-octets-bin"]) == (b"hi!", "42", b"\x00\xff"), said
    print("unary: metadata there, trailers back")

    error = fails(grpc.StatusCode.FAILED_PRECONDITION, say, b"fail", timeout=5)
    assert error.details() == "not now: ü %", error
    fails(grpc.StatusCode.DEADLINE_EXCEEDED, say, b"sleep", timeout=0.3)
    missing = channel.unary_unary(SERVICE + "None", same, same)
    fails(grpc.StatusCode.UNIMPLEMENTED, missing, b"", timeout=5)
    print("errors: a status, a deadline, a method that is not there")

    long = b"x" * 3_000_000
    assert say(long, timeout=20) == long + b"!"
    print("three million octets there and back")

    count = channel.unary_stream(SERVICE + "Count", same, same)
    assert list(count(b"n", timeout=5)) == [b"n%d" % number for number in range(5)]
    join = channel.stream_unary(SERVICE + "Join", same, same)
    assert join(iter([b"a", b"b", b"c"]), timeout=5) == b"abc"
    print("a stream of answers, a stream of questions")

    heard, answered = [], threading.Event()

    def questions():
        for word in (b"one", b"two", b"three"):
            yield word
            assert answered.wait(5), "an answer before the next question"
            answered.clear()

    talk = channel.stream_stream(SERVICE + "Talk", same, same)
    for word in talk(questions(), timeout=20):
        heard.append(word)
        answered.set()
    assert heard == [b"ONE", b"TWO", b"THREE"], heard
    print("a conversation: each answer before the next question")

    calls = [say.future(b"%d" % number, timeout=20) for number in range(300)]
    assert all(call.result() == b"%d!" % number for number, call in enumerate(calls))
    print("300 calls at a time")

    server.stop(0).wait()
    time.sleep(0.3)
    fails(grpc.StatusCode.UNAVAILABLE, say, b"hello", timeout=5)
    print("the server is gone: UNAVAILABLE")


main()
