"""`python -m regstream` is the command, for launchers that start modules: `torchrun -m regstream run merge.toml`."""

from regstream_cli.__main__ import main

if __name__ == "__main__":
    main()
