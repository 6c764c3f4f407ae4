"""Dialogues with Redis, for either kind of client: a generator yields each command, and gets its reply.

A call that needs several round trips is so written once for both clients.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import NoScriptError

from .lua import digest

if TYPE_CHECKING:
    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis

T = TypeVar("T")
Command = Callable[[Any], Any]
"""Sends something through a client; returns the reply, or what can be awaited for it."""
Dialogue = Generator[Command, Any, T]


def pipelined(ask: Callable[[Any], None], raise_on_error: bool = True) -> Command:
    """The command that sends in one write what ``ask`` puts into a pipeline; its reply is the list of theirs.

    Args:
        raise_on_error: whether an error is raised, or is the reply in its place.
    """

    def command(redis: Any) -> Any:
        pipe = redis.pipeline(transaction=False)
        ask(pipe)
        return pipe.execute(raise_on_error=raise_on_error)

    return command


def evaluated(script: str, calls: Sequence[tuple[Sequence[Any], Sequence[Any]]]) -> Dialogue[list[Any]]:
    """Call a script many times in one write, each with its keys and arguments; errors are replies.

    Redis is given the script when it does not know it.
    """
    sha = digest(script)

    def ask(pipe: Any) -> None:
        for names, arguments in calls:
            pipe.evalsha(sha, len(names), *names, *arguments)

    replies: list[Any] = yield pipelined(ask, raise_on_error=False)
    unknown = [n for n, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if unknown:
        yield lambda redis: redis.script_load(script)
        again = yield from evaluated(script, [calls[n] for n in unknown])
        for n, reply in zip(unknown, again, strict=True):
            replies[n] = reply
    return replies


def run(redis: Redis, dialogue: Dialogue[T]) -> T:
    """Run a dialogue to its end and return its result. Errors are raised where the command was yielded."""
    try:
        command = next(dialogue)
        while True:
            try:
                reply = command(redis)
            except Exception as error:
                command = dialogue.throw(error)
            else:
                command = dialogue.send(reply)
    except StopIteration as ended:
        found: T = ended.value
        return found


async def run_async(redis: AsyncRedis, dialogue: Dialogue[T]) -> T:
    """As :func:`run`, awaited."""
    try:
        command = next(dialogue)
        while True:
            try:
                reply = await command(redis)
            except Exception as error:
                command = dialogue.throw(error)
            else:
                command = dialogue.send(reply)
    except StopIteration as ended:
        found: T = ended.value
        return found
