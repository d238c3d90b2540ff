"""What of SGLang's options somebody needs who has weights cut up."""
import argparse
from types import SimpleNamespace


class ServerArgs(SimpleNamespace):
    @staticmethod
    def add_cli_args(parser):
        parser.add_argument("--model-path", required=True)
        parser.add_argument("--tensor-parallel-size", "--tp-size", type=int, default=1, dest="tp_size")
        parser.add_argument("--load-format", default="auto")
        parser.add_argument("--dtype", default="auto")
        parser.add_argument("--quantization")
        parser.add_argument("--attention-backend")
        parser.add_argument("--sampling-backend")
        parser.add_argument("--mem-fraction-static", type=float)
        parser.add_argument("--context-length", type=int)
        parser.add_argument("--trust-remote-code", action="store_true")
        parser.add_argument("--skip-server-warmup", action="store_true")
        parser.add_argument("--cuda-graph-backend-decode")
        parser.add_argument("--cuda-graph-backend-prefill")
        parser.add_argument("--watchdog-timeout", type=float, default=300)
        parser.add_argument("--log-level", default="info")


def prepare_server_args(argv):
    parser = argparse.ArgumentParser(prog="sglang serve")
    ServerArgs.add_cli_args(parser)
    return ServerArgs(**vars(parser.parse_args(argv)))
