"""The Lua scripts that the roles run, whole: each is told to the server by its SHA-1.

They are read as files, because the modules that run them need packages that an operator's machine may lack.
"""

from __future__ import annotations

from autoscaler.leader import RELEASE as RELEASE_LEADER
from autoscaler.leader import RENEW as RENEW_LEADER
from producer.contract.server.lua import script

SUBMIT = script("producer", "submit.lua")
LOCATE = script("producer.estimates", "locate.lua")
CANCEL = script("producer.contract.queue", "cancel.lua")
REVOKE = script("producer.contract.queue", "revoke.lua")
WITHDRAW = script("producer.contract.queue", "withdraw.lua")

ADMIT = script("gateway.access", "admit.lua")
CLAIM_WEBHOOKS = script("gateway.webhooks", "webhook_claim.lua")
CANCEL_BATCH = script("gateway.batches.storage", "cancel.lua")
COMMIT_BATCH = script("gateway.batches.storage", "commit.lua")

_LEASES = ("claim.lua", "finish.lua", "release.lua", "renew.lua", "reap.lua", "bury.lua", "defer.lua", "excuse.lua")
CLAIM, FINISH, RELEASE, RENEW, REAP, BURY, DEFER, EXCUSE = (script("scheduler.lease", name) for name in _LEASES)
RECOUNT = script("scheduler.order", "recount.lua")
REQUEUE = script("scheduler", "requeue.lua")
STREAM = script("workers", "streaming.lua")
LAST_QUEUED = script("autoscaler.estimates", "last_queued.lua")

LEADER = (RENEW_LEADER, RELEASE_LEADER)
