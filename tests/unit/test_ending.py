"""Tasks that forget a cancellation are ended all the same."""

import asyncio
from contextlib import suppress

from producer.cancel_tasks import end


def test_a_task_that_forgets_a_cancellation_is_cancelled_again() -> None:
    forgotten = 0

    async def forgetful() -> None:
        nonlocal forgotten
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        forgotten += 1
        await asyncio.Event().wait()

    async def main() -> tuple[bool, bool]:
        tasks = [asyncio.create_task(forgetful()), asyncio.create_task(asyncio.sleep(0))]
        await asyncio.sleep(0)
        await end(tasks)
        return tasks[0].cancelled(), tasks[1].done()

    assert asyncio.run(main()) == (True, True)
    assert forgotten == 1


def test_nothing_to_end() -> None:
    asyncio.run(end([]))
