"""Others' WebSocket and gRPC: `peers.py serve WEBSOCKET GRPC` answers at these ports, `peers.py ask EDGE` asks both
through the load balancer, as ws.test and grpc.test."""

import asyncio
import sys
from concurrent import futures

import grpc
import websockets


async def echo(socket):
    async for message in socket:
        await socket.send(message)
    await socket.wait_closed()


def unary(request, context):
    if request == b"missing":
        context.abort(grpc.StatusCode.NOT_FOUND, "nothing is here")
    context.set_trailing_metadata((("x-trailer", "end"),))
    return request[::-1]


def stream(requests, context):
    for request in requests:
        yield request[::-1]


def serve(port):
    server = grpc.server(futures.ThreadPoolExecutor(4))
    methods = {
        "Turn": grpc.unary_unary_rpc_method_handler(unary),
        "Turns": grpc.stream_stream_rpc_method_handler(stream),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Turner", methods),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    return server


async def answer(socket_port, grpc_port):
    _server = serve(grpc_port)
    async with websockets.serve(echo, "127.0.0.1", socket_port, max_size=None):
        await asyncio.get_running_loop().create_future()


async def ask_socket(port):
    async with websockets.connect(f"ws://ws.test:{port}/chat", host="127.0.0.1", max_size=None) as socket:
        for message in ["hello", "", "x" * 1_000_000, bytes(range(256)) * 4096]:
            await socket.send(message)
            assert await socket.recv() == message
        await (await socket.ping())
        await socket.close(1000, "enough")
        assert (socket.close_code, socket.close_reason) == (1000, "enough"), socket.close_code


def ask_grpc(port):
    options = (("grpc.default_authority", "grpc.test"),)
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        turn = channel.unary_unary("/test.Turner/Turn")
        answer, call = turn.with_call(b"abc", timeout=10)
        assert answer == b"cba"
        assert ("x-trailer", "end") in [tuple(pair) for pair in call.trailing_metadata()]
        large = b"ab" * 1_000_000
        assert turn(large, timeout=20) == large[::-1]
        try:
            turn(b"missing", timeout=10)
            raise AssertionError("an error was expected")
        except grpc.RpcError as error:
            assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "nothing is here")
        turns = channel.stream_stream("/test.Turner/Turns")
        messages = [str(n).encode() for n in range(100)]
        assert list(turns(iter(messages), timeout=20)) == [message[::-1] for message in messages]


if sys.argv[1] == "serve":
    asyncio.run(answer(int(sys.argv[2]), int(sys.argv[3])))
else:
    asyncio.run(ask_socket(int(sys.argv[2])))
    ask_grpc(int(sys.argv[2]))
    print("all was answered")
