"""Waiting for a condition, never for a number of seconds."""

import time


def wait_until(condition, timeout_s=60.0, message=""):
    """Return what `condition()` returns once it is true; fail after `timeout_s`."""
    give_up_at = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= give_up_at:
            raise AssertionError(message or f"{condition} did not come true in {timeout_s} s")
        time.sleep(0.01)
