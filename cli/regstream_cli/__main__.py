"""`python -m regstream_cli`, the same as `regstream`."""

from regstream_cli.app import main

if __name__ == "__main__":
    main()
