"""Tells an interruption by a signal from an exception that code raised by itself.

Ctrl-C raises `KeyboardInterrupt` in whatever the main thread executes, and a signal handler of the application may
raise `SystemExit` there. Both end the program. The same exceptions out of a handler's own code end the handler only.
"""

from __future__ import annotations

import dis
import signal
import threading
from types import CodeType, TracebackType

from .callables import innermost

_RAISE = dis.opmap["RAISE_VARARGS"]


def came_by_signal(error: BaseException) -> bool:
    """Whether a signal's handler raised this. To be asked in the thread in which the error was raised."""
    if threading.current_thread() is not threading.main_thread():  # where Python runs no signal handlers
        return False
    places = list(_places(error.__traceback__))
    handlers = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()}
    if any(place.tb_frame.f_code in handlers for place in places):
        return True
    if not issubclass(type(error), KeyboardInterrupt) or not places:
        return False
    last = places[-1]
    if str(last.tb_frame.f_globals.get("__name__")).partition(".")[0] == "trio":  # at a checkpoint of the main task
        return True
    # Python's default handler has no frame: it raises between two instructions of any other code.
    raised_here = last.tb_frame.f_code.co_code[last.tb_lasti] == _RAISE
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler and not raised_here


def _places(trace: TracebackType | None) -> list[TracebackType]:
    places = []
    while trace is not None:
        places.append(trace)
        trace = trace.tb_next
    return places


def _code_of(handler: object) -> CodeType | None:
    code = getattr(innermost(handler), "__code__", None)
    return code if isinstance(code, CodeType) else None
