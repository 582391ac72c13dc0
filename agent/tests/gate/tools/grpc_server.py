"""A gRPC server without generated code: messages are bytes. Says its port on the first line."""

import sys
import time
from concurrent import futures

import grpc


def unary(request, context):
    context.set_trailing_metadata((("x-trailer", "kept"),))
    if request == b"fail":
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked")
    if request == b"sleep":
        time.sleep(30)
    return request


def feed(request, context):
    for n in range(int(request)):
        yield b"message %d" % n


def endless(request, context):
    yield b"first"
    while context.is_active():
        time.sleep(0.01)


def chat(requests, context):
    for request in requests:
        yield request


HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Feed": grpc.unary_stream_rpc_method_handler(feed),
    "Endless": grpc.unary_stream_rpc_method_handler(endless),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
}

server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", HANDLERS),))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
# Ends with the test that started it.
sys.stdin.read()
server.stop(0)
