import subprocess
import sys

# A process of its own: the folder of the cache holds for a whole process.
PROGRAM = """
import logging, pathlib, sys
import jax, jax.numpy as jnp
from mtl_jax.runtime import compiled_programs

logging.basicConfig(format="%(message)s", stream=sys.stdout)
folder = pathlib.Path(sys.argv[1])
compiled_programs.keep(folder)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)

def flipped(x): return jnp.sin(x) + 1
def cut(x): return jnp.sin(x) + 2
def emptied(x): return jnp.sin(x) + 3
def kept(x): return jnp.sin(x) + 4

def call():
    jax.clear_caches()
    return [float(jax.jit(program)(0.0)) for program in (flipped, cut, emptied, kept)]

def entries():
    return {path.name: path.read_bytes() for path in folder.glob("*-cache")}

assert call() == [1, 2, 3, 4]
whole = entries()
for name, content in whole.items():
    damaged = {
        "jit_flipped": content[:200] + bytes([content[200] ^ 4]) + content[201:],
        "jit_cut": content[:200],
        "jit_emptied": b"",
    }
    (folder / name).write_bytes(damaged.get(name.partition("-")[0], content))
assert sum(content != whole[name] for name, content in entries().items()) == 3
assert call() == [1, 2, 3, 4]
assert entries().keys() == whole.keys()
assert all(len(content) > 200 for content in entries().values())
assert call() == [1, 2, 3, 4]
"""


def test_damaged_programs_are_stored_again_and_told_of_once(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, run.stderr
    message = f"{tmp_path}: damaged compiled programs are compiled and stored again: jit_"
    for line, program in zip(run.stdout.splitlines(), ("flipped", "cut", "emptied"), strict=True):
        assert line.startswith(f"{message}{program}-")
    assert "Error reading" not in run.stderr
