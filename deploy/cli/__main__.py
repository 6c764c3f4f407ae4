"""``python -m deploy.cli``: the same as ``stoker``, for where no script is on PATH."""

from . import main

main()
