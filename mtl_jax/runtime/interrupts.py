"""Ctrl-C that no callback of a library can swallow."""

import signal
import sys
import threading

_DELAY = 0.05  # seconds, in which the callback that swallowed the signal returns


def keep() -> None:
    """Repeats each KeyboardInterrupt that Python ignores, until the main thread gets it outside of a callback.

    Python raises KeyboardInterrupt wherever the main thread is. In a callback of the garbage collector, such as jax's,
    in a finaliser or in a callback of C code Python only reports the exception, and the program would go on as if
    nobody had asked it to stop.
    """
    sys.unraisablehook = _repeat


def _repeat(unraisable: "sys.UnraisableHookArgs") -> None:
    main = threading.main_thread().ident
    if issubclass(unraisable.exc_type, KeyboardInterrupt) and main is not None:
        timer = threading.Timer(_DELAY, lambda: signal.pthread_kill(main, signal.SIGINT))
        timer.daemon = True
        timer.start()
    else:
        sys.__unraisablehook__(unraisable)
