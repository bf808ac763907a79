import logging

import jax
import jax.numpy as jnp

from mtl_jax.runtime import compilation


def test_the_first_call_alone_says_that_it_compiles(caplog, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))

    def announced():
        times = iter([10.0, 52.4])
        return compilation.announced(jax.jit(lambda x: jnp.cos(x) * 3), "the step", lambda: next(times))

    with caplog.at_level(logging.INFO, compilation.logger.name):
        step = announced()
        assert not caplog.records
        assert step(0.0) == step(0.0) == 3
        assert caplog.messages == ["compiling the step ...", "the step is compiled (42 s)"]
        jax.clear_caches()
        caplog.clear()
        assert announced()(0.0) == 3
    assert caplog.messages == [
        "compiling the step ...",
        "the step was read from the cache of compiled programs (42 s)",
    ]
