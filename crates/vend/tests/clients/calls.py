"""gRPC on both sides of a platform. `calls.py serve` is the app: it answers at $PORT, and says of itself that it is well
but for where $ILL is set. `calls.py ask ADDRESS HOST` is its visitor: it calls HOST at ADDRESS."""

import os
import sys
import time
from concurrent import futures

import grpc

SERVING = b"\x08\x01"


def turn(request, context):
    if request == b"missing":
        context.abort(grpc.StatusCode.NOT_FOUND, "nothing is here")
    context.set_trailing_metadata((("x-via", dict(context.invocation_metadata()).get("x-forwarded-for", "nobody")),))
    return request[::-1]


def turns(requests, context):
    for request in requests:
        yield request[::-1]


def check(request, context):
    if os.environ.get("ILL"):
        context.abort(grpc.StatusCode.UNAVAILABLE, "not today")
    return SERVING


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(4))
    services = {
        "test.Turner": {
            "Turn": grpc.unary_unary_rpc_method_handler(turn),
            "Turns": grpc.stream_stream_rpc_method_handler(turns),
        },
        "grpc.health.v1.Health": {"Check": grpc.unary_unary_rpc_method_handler(check)},
    }
    for name, methods in services.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
    server.add_insecure_port(f"0.0.0.0:{os.environ['PORT']}")
    server.start()
    server.wait_for_termination()


def ask(address, host):
    with grpc.insecure_channel(address, options=(("grpc.default_authority", host),)) as channel:
        one = channel.unary_unary("/test.Turner/Turn")
        answer, call = one.with_call(b"abc", timeout=20)
        assert answer == b"cba", answer
        assert ("x-via", "127.0.0.1") in [tuple(pair) for pair in call.trailing_metadata()], call.trailing_metadata()
        large = b"ab" * 1_000_000
        assert one(large, timeout=20) == large[::-1]
        try:
            one(b"missing", timeout=20)
            raise AssertionError("an error was expected")
        except grpc.RpcError as error:
            assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "nothing is here"), error
        many = channel.stream_stream("/test.Turner/Turns")

        def one_by_one():
            for number in range(20):
                yield str(number).encode()
                time.sleep(0.01)

        assert list(many(one_by_one(), timeout=20)) == [str(number).encode()[::-1] for number in range(20)]
    print("all was answered")


if sys.argv[1] == "serve":
    serve()
else:
    ask(*sys.argv[2:])
