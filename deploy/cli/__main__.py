"""``python -m deploy.cli``: the same as ``stoker``, for where no script is on PATH."""

from deploy.command_line import main

main()
