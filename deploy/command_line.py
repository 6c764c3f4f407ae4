"""The console script ``stoker``: the command line, or what to install to have it."""

from __future__ import annotations

import sys

from producer.contract.extras import cure


def main() -> None:
    """Run a command. Without the libraries that it needs, that is one message on stderr and exit code 2."""
    try:
        from .cli import main as run

        run()
    except ModuleNotFoundError as missing:
        if not (told := cure(missing)):
            raise
        print(f"stoker: {told}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
