"""Every Redis key that Stoker uses. No key is formatted anywhere else.

Queue names are shared with stock Celery and carry no prefix. Everything else is private, named
``stoker:*`` so that a stock worker's own sweep of ``unacked`` can never touch it.
"""

from .fleet import tenants

# Formats of printf, which Python and Lua (lanes.lua) share.
OF_MODEL = "stoker:%s:%s"
"""Kind and model."""
OF_TIER = "stoker:%s:%s:%s"
"""Kind, tier and model."""
OF_TENANT = "stoker:%s:%s:%s:%s"
"""Kind, tier, quoted tenant and model."""


def any_of_model(model: str) -> str:
    """Pattern of all that is kept of a model, apart from its queues."""
    return OF_MODEL % ("*", model)


def any_lane(model: str) -> str:
    """Pattern of the lanes of all tenants and tiers of a model."""
    return OF_TIER % ("lane", "*", model)


def any_dated(model: str) -> str:
    """Pattern of the jobs with a deadline of their own, of all tenants and tiers of a model."""
    return OF_TIER % ("dated", "*", model)


def queue(model: str, tier: str) -> str:
    """List. Jobs of one model and tier, newest on the left; no expiry. Any Celery producer may push."""
    return f"{model}.{tier}"


def lane(model: str, tier: str, tenant: str) -> str:
    """List. ``due|message`` of a named tenant's jobs, newest on the left; no expiry. ``due`` is the server's time in
    seconds at which the job came, plus the tier's target. The lane of ``default`` is the queue itself."""
    return OF_TENANT % ("lane", tier, tenants.quoted(tenant), model)


def dated(model: str, tier: str, tenant: str) -> str:
    """Sorted set. ``due!message`` of a tenant's jobs with a deadline of their own -> the same ``due``; no expiry."""
    return OF_TENANT % ("dated", tier, tenants.quoted(tenant), model)


def due(model: str, tier: str) -> str:
    """Sorted set. Tenant that has such jobs -> its earliest deadline in Unix seconds; no expiry."""
    return OF_TIER % ("due", tier, model)


def counters(model: str, tier: str) -> str:
    """Sorted set. Tenant with jobs waiting -> the tokens it was served, over its weight; no expiry."""
    return OF_TIER % ("counters", tier, model)


def entrants(model: str, tier: str) -> str:
    """Set. Tenants of which producers say that they have jobs waiting, and that have no counter yet; no expiry. A claim
    gives them one: no producer decides whose turn it is."""
    return OF_TIER % ("entrants", tier, model)


def reached(model: str, tier: str) -> str:
    """Hash. Tenant with jobs waiting -> ``due`` of the job that was last taken from its lane; no expiry."""
    return OF_TIER % ("reached", tier, model)


def departed(model: str, tier: str) -> str:
    """Sorted set. The same of tenants that have none waiting, as long as it matters; no expiry."""
    return OF_TIER % ("departed", tier, model)


def lanes(model: str) -> str:
    """Hash. ``jobs:QUEUE``: jobs in its lanes, as producers count them and claims count them again; no expiry. A queue
    of which it says nothing never had a lane."""
    return OF_MODEL % ("lanes", model)


def accounts(model: str) -> str:
    """Hash. ``left:QUEUE``: counter of the tenant that left it last; ``output``: tokens that a job makes on average; no
    expiry."""
    return OF_MODEL % ("accounts", model)


def wake(model: str, tier: str) -> str:
    """List of one element, there while a worker would find a job in a lane; what workers block on; no expiry."""
    return OF_TIER % ("wake", tier, model)


def held(model: str) -> str:
    """Hash. Tenant with a quota for it -> jobs in flight; no expiry."""
    return OF_MODEL % ("held", model)


def spent(model: str) -> str:
    """Hash. Tenant with a quota for it -> ``tokens@instant``: a leaky bucket, as it was then; no expiry."""
    return OF_MODEL % ("spent", model)


def inflight(model: str) -> str:
    """Hash. Lease -> the message as it was taken; no expiry. A field exists exactly while leased."""
    return OF_MODEL % ("inflight", model)


def leases(model: str) -> str:
    """Sorted set. Lease -> the server time in seconds at which it runs out; no expiry."""
    return OF_MODEL % ("leases", model)


def losses(model: str) -> str:
    """Hash. SHA1 of a message -> how many of its workers were lost; a field goes when its job ends."""
    return OF_MODEL % ("losses", model)


def history(model: str) -> str:
    """Hash. SHA1 of a message -> a line for each worker lost over it; a field goes when its job ends."""
    return OF_MODEL % ("history", model)


def suspects(model: str) -> str:
    """List. ``queue|message`` of jobs that may have killed their workers, each to be run alone; no expiry."""
    return OF_MODEL % ("suspects", model)


def deferred(model: str) -> str:
    """Sorted set. ``queue|message`` of jobs to be tried again -> server time in seconds at which; no expiry."""
    return OF_MODEL % ("deferred", model)


def retries(model: str) -> str:
    """Hash. SHA1 of a message -> how often it was tried again; a field goes when its job ends."""
    return OF_MODEL % ("retries", model)


def served(model: str) -> str:
    """Hash. Queue -> server time in seconds since when its head has waited to be taken; no expiry."""
    return OF_MODEL % ("served", model)


def waiting(model: str) -> str:
    """Hash. Queue -> server time in seconds since when it has not been empty; no expiry."""
    return OF_MODEL % ("waiting", model)


def taken(model: str) -> str:
    """Hash. Queue -> number of jobs ever taken from it for good; no expiry. With the queue's length this
    counts all arrivals, also those that plain Celery pushed."""
    return OF_MODEL % ("taken", model)


def dead(model: str) -> str:
    """Stream. Dead letters: queue, reason, losses, message; of a bounded age and size (``letters.lua``)."""
    return OF_MODEL % ("dead", model)


def letter_sizes(model: str) -> str:
    """Sorted set, by name. ``tenant|id|bytes`` of dead letters; goes with them."""
    return OF_MODEL % ("lettersizes", model)


def letter_bytes(model: str) -> str:
    """Hash. Tenant, or nothing for all -> bytes of its dead letters; goes with them."""
    return OF_MODEL % ("letterbytes", model)


def cancelled() -> str:
    """Sorted set. Job id -> server time in seconds until which the cancellation is remembered."""
    return "stoker:cancelled"


def withdrawals() -> str:
    """Sorted set. Id of a cancelled job that may still be queued -> server time in seconds until which it is looked
    for."""
    return "stoker:withdrawals"


def cancellations() -> str:
    """List. Ids of jobs that producers have cancelled, newest on the left, for the autoscaler to fix their results; no
    expiry."""
    return "stoker:cancellations"


def pidbox(db: int) -> str:
    """Pub/sub channel. Celery's remote control, by which running workers hear of revoked jobs."""
    return f"/{db}.celery.pidbox"


def submission(job_id: str) -> str:
    """String. Marks a job with an idempotency key as submitted; expires with its result."""
    return f"stoker:submission:{job_id}"


def result(job_id: str) -> str:
    """String and pub/sub channel. Celery's result of a job, in Celery's own format; expires."""
    return f"celery-task-meta-{job_id}"


def stream(job_id: str) -> str:
    """Stream, capped. The pieces of a streaming job's output as they are made; expires with its result."""
    return f"stoker:stream:{job_id}"


def bell(reader: str) -> str:
    """Stream of one entry. Wakes a reader of many streams, so that it includes another; expires when unused."""
    return f"stoker:bell:{reader}"


def job_record(job_id: str) -> str:
    """String. Whose a job is that was left with a gateway, and its webhook, as JSON; expires after its result."""
    return f"stoker:job:{job_id}"


def idempotency(name: str) -> str:
    """String. SHA-256 of the request that a tenant's idempotency key stands for, or that a client may repeat, and what
    was made of it; expires with its record, or when it is not repeated any more. ``name`` is a SHA-256."""
    return f"stoker:idempotency:{name}"


def webhooks() -> str:
    """Sorted set. Job id -> server time in seconds at which a gateway is to look after its webhook; no expiry."""
    return "stoker:webhooks"


def api_keys() -> str:
    """Hash. SHA-256 of an API key in hex -> everything else about it as JSON; no expiry, revoked ones stay."""
    return "stoker:apikeys"


def rate(digest: str) -> str:
    """String. Server time in ms at which an API key's allowance of requests is full again; expires then."""
    return f"stoker:rate:{digest}"


def file(file_id: str) -> str:
    """String. What is known of a file of a batch, but for its content, as JSON; no expiry, goes when it is deleted."""
    return f"stoker:file:{file_id}"


def files(tenant: str) -> str:
    """Sorted set, by name. Ids of a tenant's files, which sort by their age; no expiry. (A tenant may be named like a
    model, and no pattern for the keys of that model shall match: hence the slash, which no model has.)"""
    return f"stoker:files:{tenant}/"


def batch(batch_id: str) -> str:
    """Hash. What was asked of a batch (``asked``, JSON), and what has come of it, a field each; no expiry."""
    return f"stoker:batch:{batch_id}"


def batches(tenant: str) -> str:
    """Sorted set, by name. Ids of a tenant's batches, which sort by their age; no expiry."""
    return f"stoker:batches:{tenant}/"


def open_batches() -> str:
    """Sorted set, by name. Ids of the batches of all tenants that are not over."""
    return "stoker:openbatches"


def open_batches_of(tenant: str) -> str:
    """Sorted set, by name. Ids of a tenant's batches that are not over."""
    return f"stoker:openbatches:{tenant}/"


def open_tenants() -> str:
    """Sorted set, by name. Tenants with batches that are not over."""
    return "stoker:opentenants"


def batch_lease(batch_id: str) -> str:
    """String. The batch process that runs the batch; expires when it stops renewing."""
    return f"stoker:batchlease:{batch_id}"


def batch_parts(batch_id: str) -> str:
    """Hash. Part of a batch's output that is written -> ``completed failed``, its lines; goes when the batch ends."""
    return f"stoker:batchparts:{batch_id}"


def worker(name: str) -> str:
    """String. A worker's last heartbeat as JSON; expires after a few missed beats."""
    return f"stoker:worker:{name}"


def workers() -> str:
    """Sorted set. Worker name -> Unix time of its last heartbeat; the index of ``worker``."""
    return "stoker:workers"


def throughput(model: str) -> str:
    """Hash. ``jobs_per_s``, ``run_s`` and ``load_s`` last measured by any worker of the model, and ``jobs_per_s:TYPE``
    by one on a device of that type; no expiry."""
    return OF_MODEL % ("throughput", model)


def costs(model: str) -> str:
    """Hash. Kind of device -> what a batch of the model costs there as JSON, as its workers have learned it;
    no expiry."""
    return OF_MODEL % ("costs", model)


def leader() -> str:
    """String. Name of the autoscaler that leads; expires when it stops renewing."""
    return "stoker:autoscaler"


def decisions() -> str:
    """Stream, capped. The autoscaler's decisions: model, action, reason and what they were based on."""
    return "stoker:decisions"


def devices() -> str:
    """String. The autoscaler's last view of its node and the devices there as JSON; expires after a few missed
    rounds."""
    return "stoker:devices"


def estimates(model: str) -> str:
    """String. How far the autoscaler's latest estimates for the model's jobs were off, as JSON; no expiry."""
    return OF_MODEL % ("estimates", model)


def sizes() -> str:
    """String. What the autoscaler last wanted of every model, and why, as JSON; expires with ``devices``."""
    return "stoker:sizes"


def retry_requests() -> str:
    """Set. Models that an operator wants started again before their back-off is over; the leader takes them out."""
    return "stoker:retry"


def quarantine() -> str:
    """Hash. UUID of a device -> what its faults were and until when it is out of use, as JSON; a field goes when it has
    long been well."""
    return "stoker:quarantine:devices"
