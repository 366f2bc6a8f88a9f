"""A training that is asked to stop finishes its step first."""

import signal
import threading
from types import FrameType, TracebackType


class StopRequest:
    """Notes SIGINT (Ctrl-C) and SIGTERM inside its ``with`` block; the second one acts as usual.

    Attributes:
        signal_name: of the signal that came; None until then.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._usual: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        # Python hands signals to the main thread alone.
        if threading.current_thread() is threading.main_thread():
            self._usual = {number: signal.signal(number, self._note) for number in self._SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal_name = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._usual.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._usual = {}
