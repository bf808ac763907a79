"""Opens a small app for the browser: drop a photo, see every task.

    mtl app --workdir runs/nyud_mtinet
    mtl app --workdir runs/nyud_mtinet --host 0.0.0.0 --port 8080

Prints the address, and runs until it is interrupted (Ctrl-C). Photos, of at most 50 MB each, stay on the
machine that runs the app. Its temporary files are deleted after one to two hours. It needs the extra "app".
"""

import argparse

from mtl_jax import app, cli


def add_arguments(parser: cli.Parser) -> None:
    parser.add_argument(
        "--workdir", required=True, help="directory of a training run, folder of a saved model, or hf://OWNER/NAME"
    )
    parser.add_step()
    parser.add_weights()
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at, this machine alone by default; 0.0.0.0 = all"
    )
    parser.add_argument("--port", type=cli.at_least(1), default=7860, metavar="N", help="port, 7860 by default")


def run(arguments: argparse.Namespace) -> None:
    cli.enable_compilation_cache()
    app.launch(arguments.workdir, arguments.step, arguments.weights, host=arguments.host, port=arguments.port)
