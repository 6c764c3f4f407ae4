-- Lanes: where the jobs of named tenants wait, and those with a deadline of their own, apart from the plain list.
-- A place is where a job waits: 'queue' is the plain list, which is the lane of the tenant 'default'; 'queue/tenant' a
-- tenant's lanes: a list of 'due|message', and a sorted set by due of 'due!message', those with a deadline of their own.
-- What is there is an entry; it stays as it is until the job ends, and is the message itself only on the plain list.
-- Instants are by the server's clock, with DUE characters, and names of tenants quoted (tenants.py): no separator is in
-- them. Keys are those of keys.py, of the model and tier that the queue's name begins and ends with.
-- constant DEFAULT from ../fleet/tenants.py
-- constant DUE from lanes.py
-- constant REMEMBERED from lanes.py
-- constant OF_MODEL from ../keys.py
-- constant OF_TIER from ../keys.py
-- constant OF_TENANT from ../keys.py

local function tier_key(kind, queue, tenant)
  local model, tier = string.match(queue, '^(.*)%.([^.]+)$')
  if tenant then return string.format(OF_TENANT, kind, tier, tenant, model) end
  return string.format(OF_TIER, kind, tier, model)
end

local function model_key(kind, queue)
  return string.format(OF_MODEL, kind, (string.match(queue, '^(.*)%.[^.]+$')))
end

-- The tenant has jobs waiting: fairness.py, Counters.enter.
local function enter(queue, tenant)
  local counters, departed = tier_key('counters', queue), tier_key('departed', queue)
  if redis.call('ZSCORE', counters, tenant) then return end
  local least = redis.call('ZRANGE', counters, 0, 0, 'WITHSCORES')[2]
    or redis.call('HGET', model_key('lanes', queue), 'left:' .. queue)
    or 0
  local own = redis.call('ZSCORE', departed, tenant) or 0
  redis.call('ZADD', counters, math.max(tonumber(own), tonumber(least)), tenant)
  redis.call('ZREM', departed, tenant)
  if redis.call('ZCARD', departed) > REMEMBERED then redis.call('ZREMRANGEBYSCORE', departed, '-inf', least) end
end

-- Workers that look for work find some: they block on this list, and leave it as it is (transport.py).
local function wake(queue)
  local bell = tier_key('wake', queue)
  if redis.call('EXISTS', bell) == 0 then redis.call('LPUSH', bell, 1) end
end

-- So many jobs more wait in a tenant's lanes.
local function added(queue, tenant, jobs)
  redis.call('HINCRBY', model_key('lanes', queue), 'jobs:' .. queue, jobs)
  enter(queue, tenant)
  wake(queue)
end

-- Jobs wait at their place, those with a deadline of their own excepted: at the head, or at the end. Some thousand at
-- most, for Lua hands over no more arguments.
local function put_all(place, entries, at_head)
  local push = at_head and 'RPUSH' or 'LPUSH'
  local queue, tenant = string.match(place, '^([^/]+)/(.+)$')
  redis.call(push, queue and tier_key('lane', queue, tenant) or place, unpack(entries))
  if queue then
    added(queue, tenant, #entries)
  elseif at_head and redis.call('HEXISTS', model_key('lanes', place), 'jobs:' .. place) == 1 then
    enter(place, DEFAULT) -- before it gets back what the jobs were charged, as other tenants do
  end
end

-- A job waits at its place: at the head, or at the end.
local function put(place, entry, at_head)
  local queue, tenant = string.match(place, '^([^/]+)/(.+)$')
  if not queue or string.sub(entry, DUE + 1, DUE + 1) ~= '!' then
    put_all(place, { entry }, at_head)
    return
  end
  local due = string.sub(entry, 1, DUE)
  local new = redis.call('ZADD', tier_key('dated', queue, tenant), due, entry)
  redis.call('ZADD', tier_key('due', queue), 'LT', due, tenant)
  redis.call('HINCRBY', model_key('lanes', queue), 'dated:' .. queue, new)
  added(queue, tenant, new)
end

-- The message of an entry.
local function message_of(place, entry)
  return string.find(place, '/', 1, true) and string.sub(entry, DUE + 2) or entry
end
