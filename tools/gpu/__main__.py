"""`python -m gpu`: runs the check where everything that it imports is installed."""

import argparse
import signal
import sys

from gpu.requirements import missing

#: As the command line's: something that is needed cannot be used; Ctrl-C.
UNUSABLE, INTERRUPTED = 4, 130


def main() -> int:
    """The exit code: 0 if every row is ok, 1 if not, 4 if a library or the device is missing, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="tools/gpu_check", description="Checks regstream on a CUDA card.")
    parser.add_argument("--dry-run", action="store_true", help="on a simulated device, tiny, within a minute")
    arguments = parser.parse_args()
    if problems := missing():
        print(f"tools/gpu_check: {sys.executable} lacks {', '.join(problems)}; set PYTHON, or install them")
        return UNUSABLE
    from gpu.check import NoDevice, check
    from gpu.report import CheckFailed
    from gpu.setting import CARD, DRY_RUN

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what it has started is killed as Python exits
    try:
        return check(DRY_RUN if arguments.dry_run else CARD)
    except (CheckFailed, NoDevice) as problem:
        print(f"tools/gpu_check: {problem}")
        return UNUSABLE
    except KeyboardInterrupt:
        print("tools/gpu_check: interrupted")
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
