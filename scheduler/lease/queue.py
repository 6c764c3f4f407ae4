"""One model's queue in Redis: the atomic steps, each a Lua script beside this file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from producer.contract import keys
from producer.contract.fleet.settings import Settings
from producer.contract.fleet.tenants import DEFAULT, OTHERS, quoted
from producer.contract.queue.lanes import DUE, SEPARATORS
from producer.contract.server.lua import digest, script

from ..order import fairness
from ..order.preemption import Room
from ..order.priority import rank
from ..window.window import HoldLimits, no_hold
from .claim_layout import ClaimArguments, ClaimKeys, QueueArguments, flatten
from .retry_backoff import LONGEST_S, delays
from .server_clock import ServerClock
from .trials import Order

if TYPE_CHECKING:
    from redis import Redis

CLAIM_BYTES = 1024 * 1024
"""Most bytes of messages in one claim, beyond the first job: larger claims cause head-of-line blocking."""

NO_HOLD = no_hold(0)

NEVER_S = 1e9
"""Stands for "never", in seconds."""

RECOUNTED_TENANTS = 5000
"""Most tenants of a queue whose jobs are counted again in one step: some milliseconds of Redis."""

REAP_AT_ONCE = 1000
"""Most expired leases processed in one step, so that Redis is never blocked for long."""


RECOUNT_LUA = script(fairness.__name__.rpartition(".")[0], "recount.lua")
CLAIM = script(__package__, "claim.lua")
CLAIM_SHA = digest(CLAIM)


def queue_of(lease: str) -> str:
    """The queue that a leased job came from."""
    return lease.partition("|")[0].partition("/")[0]


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claimed job. ``message`` is exactly what its producer pushed."""

    lease: str
    losses: int
    """Number of workers that died while they held it."""
    message: bytes
    now: float
    """Server time of the claim, in Unix seconds."""

    @property
    def queue(self) -> str:
        """The queue that it came from."""
        return queue_of(self.lease)


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer of a claim."""

    jobs: list[Claimed]
    any_cancelled: bool
    """Whether any cancellation is remembered, of any job."""
    suspects: int
    """Suspects that were queued, one that this claim took included."""
    now: float = 0.0
    """Server time in Unix seconds."""
    arrived: int = 0
    """Jobs that ever arrived."""
    look_again_s: float | None = None
    """Seconds until the next claim, while queued jobs are held for a fuller batch."""
    blocked_s: float | None = None
    """Seconds until a tenant's quota allows queued jobs again."""
    overdue: bool = False
    """Whether jobs of preemptible tiers were overdue: these are not to be preempted."""
    patience: float = 1.0
    """The least of the preemptible tiers that jobs were taken of (``preemption.patience``)."""


class Queue:
    """Claim, finish, release, renew, bury and reap the jobs of one model.

    A lease is the right to end a job: ``place|owner:n``, unique to one claim of one message, with its charge
    (``lanes.lua``, ``settle.lua``). Its existence is the fence: after it expired and was reaped, acts in its name have
    no effect.
    """

    def __init__(self, redis: Redis, settings: Settings, model: str) -> None:
        self.redis = redis
        self.model = model
        self.lease_s = settings.redis.lease_s
        self._server_clock = ServerClock(redis)
        self._max_losses = settings.redis.max_losses
        self._letters = (settings.redis.dead_letter_bytes, settings.redis.dead_letter_ttl_s)
        self.suspect_at = max(1, self._max_losses - 1)
        """Losses after which a job runs alone, as its last chance before it becomes a dead letter."""
        self._max_retries = settings.model(model).limits.max_retries
        self._result_ttl_ms = int(settings.redis.result_ttl_s * 1000)
        tiers = settings.model(model).tiers
        self.queues = [keys.queue(model, tier) for tier in tiers]
        self.wakes = {keys.queue(model, tier): keys.wake(model, tier) for tier in tiers}
        """The lists by which workers are woken for jobs in a queue's lanes."""
        self.preemptible = {keys.queue(model, tier) for tier in tiers if settings.tiers[tier].preemptible}
        """Queues of preemptible tiers (``preemption``)."""
        self._ranks = [rank(settings.tiers[tier]) for tier in tiers]
        self._policies = _policies(settings)
        self._claim_keys = ClaimKeys(
            inflight=keys.inflight(model),
            leases=keys.leases(model),
            losses=keys.losses(model),
            served=keys.served(model),
            taken=keys.taken(model),
            cancelled=keys.cancelled(),
            suspects=keys.suspects(model),
            waiting=keys.waiting(model),
            lanes=keys.lanes(model),
            held=keys.held(model),
            spent=keys.spent(model),
        )
        scripts = ("finish.lua", "release.lua", "renew.lua", "reap.lua", "bury.lua", "defer.lua", "excuse.lua")
        self._finish, self._release, self._renew, self._reap, self._bury, self._defer, self._excuse = (
            redis.register_script(script(__package__, name)) for name in scripts
        )
        self._recount = redis.register_script(RECOUNT_LUA)

    def claim_command(
        self,
        room: Room,
        owner: str,
        idle: bool = True,
        hold: HoldLimits = NO_HOLD,
        suspects: Order = Order.FIRST,
    ) -> list[Any]:
        """The command of a claim, for callers that own their connection.

        ``owner`` must be new for every claim: it becomes part of the leases. ``idle`` tells that the worker holds
        nothing, so that it may get a suspect, in the order of ``suspects``.
        """
        arguments = ClaimArguments(
            room=room.free,
            bytes=CLAIM_BYTES,
            lease_s=self.lease_s,
            owner=owner,
            idle=int(idle),
            suspects=int(suspects),
            full=min(room.free, hold.full),
            busy_s=hold.busy_s,
            run_s=hold.run_s,
            per_job_s=min(hold.per_job_s, NEVER_S),
            share=fairness.quantum(room.most),
            policies=self._policies,
            preemptible=room.preemptible,
            preempting=room.preempting,
        )
        queues = [
            QueueArguments(line.head_start, line.growth, line.late, hold_s, int(queue in self.preemptible))
            for queue, line, hold_s in zip(self.queues, self._ranks, chain(hold.hold_s, repeat(0.0)), strict=False)
        ]
        return ["EVALSHA", CLAIM_SHA, *flatten(self._claim_keys, self.queues, arguments, queues)]

    @staticmethod
    def read_claim(answer: Sequence[Any]) -> Claim:
        """The answer of a claim."""
        at, cancelled, suspects, arrived, look_again, blocked, overdue, patience, *found = answer
        now, rest, jobs = float(at), iter(found), []
        for name, losses, entry in zip(rest, rest, rest, strict=True):
            lease = name.decode()
            in_lane = "/" in lease.partition("|")[0]  # the due time then precedes the message
            message = entry[DUE + 1 :] if in_lane and entry[DUE : DUE + 1] in SEPARATORS else entry
            jobs.append(Claimed(lease, int(losses or 0), message, now))
        return Claim(
            jobs,
            any_cancelled=bool(cancelled),
            suspects=int(suspects),
            now=now,
            arrived=int(arrived),
            look_again_s=float(look_again) if look_again else None,
            blocked_s=float(blocked) if blocked else None,
            overdue=bool(overdue),
            patience=float(patience),
        )

    def claim(self, room: int, owner: str, idle: bool = True, suspects: Order = Order.FIRST) -> list[Claimed]:
        """Claim up to ``room`` jobs, the most urgent queue first."""
        self.load()
        command = self.claim_command(Room.of(room), owner, idle, suspects=suspects)
        return self.read_claim(self.redis.evalsha(*command[1:])).jobs

    def load(self) -> None:
        """Load the claim script into the server, as is needed after its restart."""
        self.redis.script_load(CLAIM)

    def finish(self, done: Iterable[tuple[str, str, bytes]]) -> list[str]:
        """End jobs, given as (lease, job id, result or empty); returns the leases that were lost."""
        names = self._names("inflight", "leases", "losses", "retries", "history", "served")
        arguments: list[Any] = [self._result_ttl_ms, "".join(f"|{queue}|" for queue in self.preemptible)]
        for lease, job_id, result in done:
            names.append(keys.result(job_id))
            arguments += (lease, result, *_cost(lease, result))
        return [lease.decode() for lease in self._finish(names, arguments)]

    def release(self, leases: Sequence[str]) -> int:
        """Give jobs back to the head of their queues, without a loss; returns how many were still held."""
        names = self._names("inflight", "leases", "taken", "losses", "suspects")
        return int(self._release(names, [self.suspect_at, *leases])) if leases else 0

    def renew(self, leases: Sequence[str]) -> list[str]:
        """Renew leases for ``lease_s``; returns those that were lost."""
        if not leases:
            return []
        return [lease.decode() for lease in self._renew([keys.leases(self.model)], [self.lease_s, *leases])]

    def expire(self, leases: Sequence[str]) -> None:
        """Expire leases now: their jobs go back, each with a loss counted."""
        self.redis.zadd(keys.leases(self.model), dict.fromkeys(leases, 0.0), xx=True)
        self.reap()

    def excuse(self, worker: str, *, counted: bool = False) -> int:
        """Defer the jobs of a worker that has died of an outside cause: that is no loss; returns how many.

        They count a retry, because the cause is only probable: a job that is held at each of many such deaths counts
        losses in the end.

        Args:
            counted: whether to take back the losses that jobs have counted with it already. A worker whose engine is
                lost counts them itself when it ends, and does not know the cause.
        """
        found: Any = self.redis.hkeys(keys.inflight(self.model))
        leases: list[str] = [lease.decode() for lease in found]
        own = [lease for lease in leases if lease.split("|")[1].rpartition(".")[0].rpartition(".")[0] == worker]
        excused = sum(self.defer(lease) > 0 for lease in own)
        if counted:
            names = self._names("losses", "history", "suspects", "retries")
            excused += int(self._excuse(names, [worker, self.suspect_at, self._max_retries]))
        return excused

    def bury(self, lease: str, reason: str, followers: Sequence[str] = ()) -> bool:
        """Move a job to the dead letters; False when the lease was lost.

        Args:
            followers: ids of other tasks that will not run either; they are answered with the same reason.
        """
        names = self._names("inflight", "leases", "losses", "dead", "retries", "history")
        return bool(
            self._bury(names, [lease, reason, keys.result(""), self._result_ttl_ms, *self._letters, *followers])
        )

    def reap(self) -> tuple[int, int]:
        """Take back the jobs whose leases ran out; returns how many were requeued and buried.

        After the server's clock was set forward, nothing is taken back for one lease: live workers renew meanwhile.
        """
        stepped = self._server_clock.was_set_forward_within(self.lease_s)
        # Leases count as expired by the time that was looked at, not the script's: the clock may be set in between.
        expired_by = 0.0 if stepped else self._server_clock.seen_s
        places = ("inflight", "leases", "losses", "taken", "dead", "suspects", "deferred", "retries", "history")
        limits: list[float | str] = [self._max_losses, self.suspect_at, REAP_AT_ONCE]
        limits += [keys.result(""), self._result_ttl_ms, self.lease_s, LONGEST_S, expired_by, *self._letters]
        requeued, buried = self._reap(self._names(*places), limits)
        return int(requeued), int(buried)

    def recount(self) -> None:
        """Count the jobs in lanes again, which producers may miscount."""
        self._recount(self.queues, [RECOUNTED_TENANTS])

    def defer(self, lease: str) -> int:
        """Defer a job to be tried again, with exponential backoff and jitter.

        Returns the number of the retry; 0 when the retries are used up and the caller must end the job; -1 when the
        lease was lost.
        """
        names = self._names("inflight", "leases", "retries", "deferred")
        return int(self._defer(names, [lease, self._max_retries, *delays(self._max_retries)]))

    def _names(self, *kinds: str) -> list[str]:
        return [getattr(keys, kind)(self.model) for kind in kinds]

    def cancelled(self, job_ids: Sequence[str]) -> list[str]:
        """The jobs among these that were cancelled while queued."""
        if not job_ids:
            return []
        found = self.redis.zmscore(keys.cancelled(), list(job_ids))
        return [job_id for job_id, until in zip(job_ids, found, strict=True) if until is not None]


def _cost(lease: str, result: bytes) -> tuple[float | str, int | str]:
    """A job's price in tokens, and its output tokens; empty if no tenant is charged or the result has no usage."""
    if lease.count("|") == 1 or (tokens := fairness.used(result)) is None:
        return "", ""
    return fairness.price(*tokens), tokens[1]


def _policies(settings: Settings) -> str:
    """Weights and quotas of tenants as ``quotas.lua`` reads them. Quotas that make jobs wait are none of ``default``'s
    (``tenants.py``)."""
    if not settings.tenants:
        return ""
    policies = {DEFAULT: {"weight": settings.tenant(DEFAULT).weight}}
    for name, tenant in settings.tenants.items():
        if name == DEFAULT:
            continue
        known = {"weight": tenant.weight, "in_flight": tenant.max_in_flight, "per_minute": tenant.tokens_per_minute}
        policy = {key: value for key, value in known.items() if value is not None}
        policies[name if name == OTHERS else quoted(name)] = policy
    return json.dumps(policies)
