"""`python -m regstream_cli`, and what the `regstream` command calls."""

import sys


def main() -> None:
    """Run the command; Ctrl-C while it is still being imported ends it in one line too."""
    try:
        from regstream_cli.app import main as run
    except KeyboardInterrupt:
        sys.stderr.write("regstream: interrupted: nothing was begun\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
