"""What measures others' memory: from outside, and theirs alone."""

import sys

from peak import measure

_TAKES = "x = bytearray(192 << 20)\nfor i in range(0, len(x), 4096): x[i] = 1\n"
_RESETS = "open('/proc/self/clear_refs', 'w').write('5')\n"
_WAITS = "import time; time.sleep(0.1)\n"


def test_what_this_process_has_taken_is_not_the_commands() -> None:
    held = bytearray(256 << 20)
    held[::4096] = b"\1" * len(held[::4096])
    del held
    assert measure(["sleep", "0.1"]).peak_bytes < 32 << 20


def test_a_mark_that_the_command_resets_was_seen() -> None:
    taken = measure([sys.executable, "-c", f"{_TAKES}{_WAITS}del x\n{_RESETS}{_WAITS}"])
    assert 192 << 20 < taken.peak_bytes < 256 << 20
    assert taken.code == 0
