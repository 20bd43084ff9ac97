"""Runs a command and prints its peak memory as the operating system counted it: `peak.py COMMAND...`."""

import resource
import subprocess
import sys


def main() -> int:
    """Run the command with this process's streams; the last line goes to standard error."""
    code = subprocess.run(sys.argv[1:], check=False).returncode
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"peak memory {peak_kib / 1024:,.0f} MiB: {' '.join(sys.argv[1:])}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
