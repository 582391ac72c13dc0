"""A gRPC client. Says each thing that it has seen to work; the test ends it by its standard input."""

import queue
import sys

import grpc

channel = grpc.insecure_channel(sys.argv[1])
unary = channel.unary_unary("/test.Echo/Unary")
chat = channel.stream_stream("/test.Echo/Chat")

answer, call = unary.with_call(b"hello", timeout=10, wait_for_ready=True)
assert answer == b"hello"
assert ("x-trailer", "kept") in [(k, v) for k, v in call.trailing_metadata()], call.trailing_metadata()
large = b"x" * 3_000_000
assert unary(large, timeout=20) == large
print("unary", flush=True)

try:
    unary(b"fail", timeout=10)
    raise AssertionError("it did not fail")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
    assert error.details() == "as asked", error
print("status", flush=True)

assert len(list(channel.unary_stream("/test.Echo/Feed")(b"1000", timeout=20))) == 1000
print("feed", flush=True)

said = queue.Queue()
heard = chat(iter(said.get, None), timeout=20)
for n in range(100):
    said.put(b"message %d" % n)
    assert next(heard) == b"message %d" % n
said.put(None)
assert list(heard) == []
print("chat", flush=True)

try:
    unary(b"sleep", timeout=0.5)
    raise AssertionError("it did not end")
except grpc.RpcError as error:
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
print("deadline", flush=True)

endless = channel.unary_stream("/test.Echo/Endless")(b"", timeout=60)
assert next(endless) == b"first"
print("endless", flush=True)
try:
    next(endless)
    raise AssertionError("it did not end")
except grpc.RpcError as error:
    print("cut", error.code().name, flush=True)

sys.stdin.readline()
try:
    unary(b"hello", timeout=10)
    print("served", flush=True)
except grpc.RpcError as error:
    print("refused", error.code().name, error.details(), flush=True)
