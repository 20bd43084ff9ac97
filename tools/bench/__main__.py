"""`tools/bench/run`: the comparison asked for, printed and kept with its date."""

import sys

from bench import memory


def main() -> None:
    """Print as it comes."""
    wanted = sys.argv[1:]
    shapes = tuple(w for w in memory.SHAPES if not wanted or w.shape in wanted)
    for line in memory.projections(shapes):
        print(line, flush=True)


if __name__ == "__main__":
    main()
