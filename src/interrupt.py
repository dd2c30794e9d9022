"""Ctrl-C where there is nothing to save: one line and exit status 130, at once.

Python runs a signal's handler between two of its own instructions. While MindSpore compiles a graph there is none for
many seconds, so a thread waits for the signal as well: the compiler lets threads run every now and then. And once
MindSpore has run a graph, it turns Ctrl-C into a termination signal, behind Python's back: both are answered alike.
"""

import os
import signal
import sys
import threading

from src.files import remove_temporaries

SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 130  # exit status, as shells have it: 128 and the signal's number


class ExitOnInterrupt:
    """While a `with` block lasts, one of `SIGNALS` ends the process with a line on standard error and `INTERRUPTED`.

    Files that are being written are removed. In other threads than the main one, and on Windows, it does nothing.
    """

    def __enter__(self):
        self.is_active = os.name == "posix" and threading.current_thread() is threading.main_thread()
        if not self.is_active:
            return self
        self.process, self.once = os.getpid(), threading.Lock()
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        threading.Thread(target=self._wait, args=(self.reader,), daemon=True).start()
        self.former_descriptor = signal.set_wakeup_fd(self.writer, warn_on_full_buffer=False)
        self.former_handlers = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *error):
        if not self.is_active:
            return
        for number, handler in self.former_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self.former_descriptor)
        os.close(self.writer)  # which ends the thread

    def _handle(self, number, frame):
        try:
            sys.stdout.flush()
        except (OSError, RuntimeError, ValueError):  # no place, in the middle of a print, closed
            pass
        self._leave()

    def _wait(self, reader):
        """Leave when the number of the signal arrives; return when the other end is closed."""
        while received := os.read(reader, 1):
            if received[0] in SIGNALS:
                self._leave()
        os.close(reader)

    def _leave(self):
        if not self.once.acquire(blocking=False):  # handler and thread may both be here
            return
        if os.getpid() == self.process:  # worker processes, which get the signal too, leave silently
            remove_temporaries()
            os.write(2, b"\ninterrupted\n" if os.isatty(2) else b"interrupted\n")  # behind a progress bar
        os._exit(INTERRUPTED)
