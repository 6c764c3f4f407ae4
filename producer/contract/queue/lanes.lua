-- Lanes: where the jobs of named tenants wait, and those with a deadline of their own, apart from the plain list.
-- A place is where a job waits: 'queue' is the plain list, which is the lane of the tenant 'default'; 'queue/tenant' a
-- tenant's lanes: a list of 'due|message', and a sorted set by due of 'due!message', those with a deadline of their own.
-- What is there is an entry; it stays as it is until the job ends, and is the message itself only on the plain list.
-- Instants are by the server's clock, with DUE characters, and names of tenants quoted (tenants.py): no separator is in
-- them. Keys are those of keys.py, of the model and tier that the queue's name begins and ends with.
-- constant DEFAULT from ../fleet/tenants.py
-- constant DUE from lanes.py
-- constant LONGEST from ../fleet/tenants.py
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

-- When an entry is due; nil if it does not begin with an instant. Producers write entries, and may write anything.
local function due_of(entry) return tonumber(string.match(entry, '^(%d%d%d%d%d%d%d%d%d%d%.%d%d%d%d%d%d)[|!]')) end

-- Count a queue's jobs in lanes up or down. Producers write this hash: where a sum is beyond all numbers, it begins anew.
local function count_laned(queue, jobs)
  local lanes, field = model_key('lanes', queue), 'jobs:' .. queue
  local sum = redis.pcall('HINCRBY', lanes, field, jobs)
  if type(sum) ~= 'number' then redis.pcall('HSET', lanes, field, math.max(0, jobs)) end -- none of a producer's
end

-- The tenant has jobs waiting: fairness.py, Counters.enter.
local function enter(queue, tenant)
  local counters, departed = tier_key('counters', queue), tier_key('departed', queue)
  if redis.call('ZSCORE', counters, tenant) then return end
  local least = redis.call('ZRANGE', counters, 0, 0, 'WITHSCORES')[2]
    or redis.call('HGET', model_key('accounts', queue), 'left:' .. queue)
    or 0
  local own = redis.call('ZSCORE', departed, tenant) or 0
  redis.call('ZADD', counters, math.max(tonumber(own), tonumber(least)), tenant)
  redis.call('ZREM', departed, tenant)
  if redis.call('ZCARD', departed) > REMEMBERED then redis.call('ZREMRANGEBYSCORE', departed, '-inf', least) end
end

-- Enter the tenants that producers say have jobs waiting, which may not write counters themselves; some hundred at most.
-- What is no name of a tenant (tenants.py: quoted), or has nothing waiting, is forgotten.
local function enter_announced(queue)
  for _, tenant in ipairs(redis.call('SPOP', tier_key('entrants', queue), 200)) do
    if #tenant <= LONGEST and string.find(tenant, '^[%w%%_.~-]+$') then
      local jobs = tenant ~= DEFAULT and redis.call('LLEN', tier_key('lane', queue, tenant)) or 0
      if jobs + redis.call('ZCARD', tier_key('dated', queue, tenant)) > 0 then enter(queue, tenant) end
    end
  end
end

-- Workers that look for work find some: they block on this list, and leave it as it is (transport.py).
local function wake(queue)
  local bell = tier_key('wake', queue)
  if redis.call('EXISTS', bell) == 0 then redis.call('LPUSH', bell, 1) end
end

-- So many jobs more wait in a tenant's lanes.
local function added(queue, tenant, jobs)
  count_laned(queue, jobs)
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
  local due = queue and string.sub(entry, DUE + 1, DUE + 1) == '!' and due_of(entry)
  if not due then
    put_all(place, { entry }, at_head)
    return
  end
  due = string.format('%.6f', due)
  local new = redis.call('ZADD', tier_key('dated', queue, tenant), due, entry)
  redis.call('ZADD', tier_key('due', queue), 'LT', due, tenant)
  added(queue, tenant, new)
end

-- The message of an entry; the entry itself if it is none.
local function message_of(place, entry)
  local in_lane = string.find(place, '/', 1, true) and string.find(entry, '^[|!]', DUE + 1)
  return in_lane and string.sub(entry, DUE + 2) or entry
end
