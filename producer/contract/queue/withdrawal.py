"""Withdrawing cancelled jobs, or all, from their queues, so that they count no longer as queued, nor as demand.

A queue does not know where in it a job is. It is searched in parts, from the newest job on, each in one step of Redis
of some milliseconds (``withdraw.lua``); what a search does not find, such as a job that was just claimed, the worker
that claims it drops. The cancelling process searches at once, within its rights and a limit of effort; the
autoscaler finishes the search, once for all jobs that were cancelled meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from redis.exceptions import NoPermissionError, ResponseError

from .. import keys
from ..fleet.settings import Settings
from ..fleet.tenants import DEFAULT, is_quoted, quoted
from ..message.celery_message import cancelled_meta
from ..server.dialogue import Dialogue, evaluated, pipelined
from ..server.lua import script

WITHDRAW_LUA = script(__package__, "withdraw.lua")
REVOKE_LUA = script(__package__, "revoke.lua")

REVOKED_AT_ONCE = 1000
"""Most revoked jobs remembered in one step."""

STEP_BYTES = 256 * 1024
"""Most bytes of messages looked at in one step, about: some milliseconds of Redis."""

MOST_TENANTS = 100
"""Most tenants of a queue whose jobs one search looks at, those with the least service first."""


PLACES_AT_ONCE = 100
"""Most places from which one step of a purge takes jobs."""


class Whereabouts(TypedDict, total=False):
    """What is known of where jobs are queued."""

    model: str
    tier: str
    tenant: str


Kind = Literal["listed", "dated", "suspects", "deferred"]


@dataclass(frozen=True, slots=True)
class _Place:
    """A place where jobs wait; see ``withdraw.lua``. ``tenant`` is quoted."""

    model: str
    queue: str
    kind: Kind
    tenant: str = ""


class Search:
    """One search through queues for cancelled jobs, of which it withdraws all that it finds.

    Args:
        known: where the jobs are; what is not in the fleet file any more does not count.
        every: whether it withdraws all jobs that are there, rather than those that were cancelled before. Each gets the
            result of a cancelled job in the same step.
    """

    def __init__(self, settings: Settings, known: Whereabouts | None = None, *, every: bool = False) -> None:
        self.withdrawn: set[str] = set()
        """The ids of the jobs that were withdrawn."""
        self.count = 0
        """The number of messages that were withdrawn, including those that are no jobs."""
        self._every = every
        known = known or {}
        models = [known["model"]] if known.get("model") in settings.models else list(settings.models)
        self._queues = [
            (model, keys.queue(model, tier))
            for model in models
            for tier in settings.model(model).tiers
            if known.get("tier") in (None, tier)
        ]
        self._tenant = known.get("tenant")
        self._looked: dict[_Place, int] | None = None
        """How many jobs were looked at, of each place with more."""
        self._result = (keys.result(""), cancelled_meta("")[:-3], int(settings.redis.result_ttl_s * 1000))

    @property
    def done(self) -> bool:
        """Whether it has searched everywhere."""
        return self._looked is not None and not self._looked

    def step(self) -> Dialogue[None]:
        """Search a little further.

        Raises:
            redis.NoPermissionError: this user may not take jobs out of queues.
        """
        if self._looked is None:
            self._looked = dict.fromkeys((yield from self._places()), 0)
        looked = self._looked
        places = list(looked)[: PLACES_AT_ONCE if self._every else None]
        bytes_each = max(1, STEP_BYTES // max(1, len(places)))
        calls = [
            (
                [place.queue, keys.served(place.model), keys.cancelled(), keys.withdrawals()],
                [place.kind, place.tenant, looked[place], bytes_each, *self._result, int(self._every)],
            )
            for place in places
        ]
        answers = yield from evaluated(WITHDRAW_LUA, calls)
        for place, answer in zip(places, answers, strict=True):
            if isinstance(answer, ResponseError) and "WRONGTYPE" in str(answer):
                del looked[place]  # something else is stored there
                continue
            if isinstance(answer, Exception):
                raise answer
            at, *withdrawn = answer
            self.count += len(withdrawn)
            self.withdrawn.update(job_id.decode() for job_id in withdrawn)
            if at < 0:
                del looked[place]
            else:
                looked[place] = at

    def _places(self) -> Dialogue[list[_Place]]:
        last = -1 if self._every else MOST_TENANTS - 1

        def ask(pipe: Any) -> None:
            for name, queue in self._queues:
                tier = queue.removeprefix(f"{name}.")
                pipe.zrange(keys.counters(name, tier), 0, last)
                pipe.srandmember(keys.entrants(name, tier), MOST_TENANTS)

        if self._tenant is not None:
            found = [[quoted(self._tenant).encode()] for _ in self._queues]
        else:
            told = yield pipelined(ask)
            found = [[*known, *entrants] for known, entrants in zip(told[::2], told[1::2], strict=True)]
        places: list[_Place] = []
        for (name, queue), tenants in zip(self._queues, found, strict=True):
            places += _of_queue(name, queue, [tenant.decode() for tenant in tenants if is_quoted(tenant)])
        # One queue of a model stands for all, unless the jobs of just these are to be told from others.
        for name, queue in self._queues if self._every else {of: (of, queue) for of, queue in self._queues}.values():
            places += (_Place(name, queue, "suspects"), _Place(name, queue, "deferred"))
        return places


def _of_queue(model: str, queue: str, tenants: Iterable[str]) -> Iterator[_Place]:
    yield _Place(model, queue, "listed")
    for tenant in tenants:
        if tenant != DEFAULT:
            yield _Place(model, queue, "listed", tenant)
        yield _Place(model, queue, "dated", tenant)


def search(wanted: Iterable[str], searched: Search, most: int) -> Dialogue[set[str]]:
    """Search for cancelled jobs, in ``most`` steps at most; returns those of ``wanted`` that were not withdrawn.

    A user that may not take jobs out of queues withdraws none: the autoscaler does.
    """
    left = set(wanted)
    try:
        for _ in range(most):
            yield from searched.step()
            left -= searched.withdrawn
            if searched.done or not left:
                break
    except NoPermissionError:
        pass
    return left


def remember(settings: Settings, job_ids: Sequence[str]) -> Dialogue[None]:
    """Remember jobs as cancelled that were revoked by a message to the workers. No worker starts them from now on, and
    the autoscaler takes those that are queued out of their queues."""
    names, ttl_s = [keys.cancelled(), keys.withdrawals()], int(settings.redis.result_ttl_s)
    parts = range(0, len(job_ids), REVOKED_AT_ONCE)
    replies = yield from evaluated(
        REVOKE_LUA, [(names, [ttl_s, *job_ids[begin : begin + REVOKED_AT_ONCE]]) for begin in parts]
    )
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
