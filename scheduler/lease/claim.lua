#!lua flags=allow-oom
-- Take up to n jobs of one model from its queues, and lease them, in one step: of the most urgent queue (priority.py)
-- the tenant whose turn it is (fairness.py) and of its jobs those that are due first, and so on (lanes.py: claim);
-- or none, while a larger batch is worth waiting for (window.py). Tiers differ in how many may be taken
-- (preemption.py).
-- A message is never decoded or re-encoded here: whatever was pushed is what is leased.
-- Keys and arguments: claim_layout.py, which names them as key.NAME, arg.NAME and queues[i].NAME.
-- Returns {server time, cancelled jobs remembered, suspects waiting, jobs that ever arrived,
--       seconds until to look again ('' when a batch is due, or nothing waits), seconds until a quota lets jobs go on
--       that wait ('' when none does that by itself), whether a preemptible tier's jobs were overdue (1 or 0), the
--       least patience of the preemptible tiers that jobs were taken of (preemption.py), lease, losses, entry (lanes.lua), lease, ...}.
-- A suspect (reap.lua) is taken alone, and only by a worker that holds nothing; before or after everything else, or not
-- at all (trials.py: Order).
-- allow-oom: taking work is what frees memory.
-- insert LUA from claim_layout.py
-- constant GRACE from ../order/preemption.py
-- constant PATIENT from ../order/preemption.py
-- constant SUSPECTS_LAST from trials.py
-- constant SUSPECTS_FIRST from trials.py
-- include ../../producer/contract/queue/lanes.lua
-- include ../window/window.lua
-- include ../order/quotas.lua
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local room, bytes = arg.room, arg.bytes
local answer = {string.format('%.6f', now), redis.call('ZCARD', key.cancelled), redis.call('LLEN', key.suspects), 0, '', '', 0, 1}
local until_ = string.format('%.6f', now + arg.lease_s)
local function try_suspect()
  local place, entry = string.match(redis.call('LINDEX', key.suspects, -1), '^([^|]+)|(.*)$')
  local tenant = string.match(place, '^[^/]+/(.+)$')
  local lease = place .. '|' .. arg.owner .. ':000000'
  if tenant then lease = lease .. '|0|' .. quotas_of(key.held, key.spent, arg.policies, now).of(tenant).weight .. '|' end
  redis.call('HSET', key.inflight, lease, entry)
  redis.call('ZADD', key.leases, until_, lease)
  redis.call('LTRIM', key.suspects, 0, -2)
  redis.call('HINCRBY', key.taken, string.match(place, '^[^/]+'), 1)
  answer[9], answer[10], answer[11] = lease, redis.call('HGET', key.losses, redis.sha1hex(entry)) or 0, entry
end
if answer[3] > 0 and arg.suspects == SUSPECTS_FIRST then
  if arg.idle == 1 then try_suspect() end
  return answer
end

-- Since when, in a hash, by the clock of the server; from now on, if it says nothing, or the clock was set back since.
local function since(hash, queue)
  local at = redis.call('HGET', hash, queue)
  local known = tonumber(at or nil)
  if known and known >= 0 and known <= now then return known end
  redis.call('HSET', hash, queue, string.format('%.6f', now))
  return now
end

local said = {} -- how many jobs are in a queue's lanes, which producers count: at best a hint
for i, of in ipairs(queues) do said[i] = 'jobs:' .. of.name end
said = redis.call('HMGET', key.lanes, unpack(said))
local MOST_LANED = 1e9
-- How many jobs are in a queue's lanes, at least one while a tenant has any there; nil if it never had lanes.
local function laned_of(queue, count, length)
  if not count then return nil end
  enter_announced(queue)
  if length > 0 then enter(queue, DEFAULT) end -- who pushed there may not have said so
  local tenants = redis.call('ZCARD', tier_key('counters', queue)) - (length > 0 and 1 or 0)
  return math.max(tenants, math.min(tonumber(count) or 0, MOST_LANED))
end

-- The earliest deadline that a job of the queue has of its own, or nil. Producers may say of any tenant that it has one.
local function first_due(queue)
  local due = tier_key('due', queue)
  for _ = 1, 5 do
    local tenant = redis.call('ZRANGE', due, 0, 0)[1]
    local first = tenant and redis.call('ZRANGE', tier_key('dated', queue, tenant), 0, 0, 'WITHSCORES')[2]
    if first or not tenant then return first end
    redis.call('ZREM', due, tenant)
  end
end

local waiting, tiers = {}, {}
for i, of in ipairs(queues) do
  local queue = of.name
  local length = redis.pcall('LLEN', queue)
  if type(length) ~= 'number' then length = 0 end -- somebody stored something else there
  local laned = laned_of(queue, said[i], length)
  local tier = { queue = queue, laned = laned or 0, jobs = length + (laned or 0), waited = 0, hold = of.hold_s }
  function tier.deadline() -- in how many seconds the earliest deadline passes that a job of the queue has of its own
    local first = laned and first_due(queue)
    return first and first - now or math.huge
  end
  if tier.jobs > 0 then
    tier.waited = now - since(key.waiting, queue)
    local fresh, served = of.head_start, since(key.served, queue)
    local yields = of.yields == 1
    local grace = arg.preempting > 0 and not yields and -GRACE * fresh - tier.waited
    waiting[#waiting + 1] = {
      yields = yields,
      patience = math.min(1, math.max(0, 1 + tier.waited / fresh) / (1 - PATIENT)),
      most = yields and arg.preemptible or (grace and grace <= 0) and room + arg.preempting or room,
      grace = grace,
      queue = queue,
      length = length,
      laned = laned or 0,
      shared = laned ~= nil, -- other tenants than the default are known
      laned_before = laned or 0,
      said = tonumber(said[i]),
      took = 0,
      fresh = fresh,
      overdue = fresh + of.growth * (now - served),
      late = of.late,
      due = served - fresh,
      served = served,
    }
    answer[4] = answer[4] + tier.jobs
  end
  tiers[#tiers + 1] = tier
end
for _, taken in ipairs(redis.call('HVALS', key.taken)) do answer[4] = answer[4] + taken end
local window = { full = arg.full, busy = arg.busy_s, run = arg.run_s, per_job = arg.per_job_s }
local again = #waiting > 0 and look_again(window, tiers) or 0
if again > 0 then
  answer[5] = string.format('%.6f', again)
  return answer
end

local SLICE = 500 -- Lua hands over some thousand arguments at most
local quotas = quotas_of(key.held, key.spent, arg.policies, now)
local share, mean = arg.share, tonumber(redis.call('HGET', model_key('accounts', queues[1].name), 'output') or 0)
local any_losses = redis.call('EXISTS', key.losses) == 1
local count, entries, deadlines = 0, {}, {}
local format, owner = string.format, '|' .. arg.owner .. ':'
local function flush()
  if #entries == 0 then return end
  redis.call('HSET', key.inflight, unpack(entries))
  redis.call('ZADD', key.leases, unpack(deadlines))
  entries, deadlines = {}, {}
end
-- Whether there are bytes left for it.
local function fits(entry)
  if count > 0 and bytes < #entry then
    bytes = 0
    return false
  end
  bytes = bytes - #entry
  return true
end
-- The job is this claim's; prefix: place and owner; terms: by what it was charged, or nil.
local function lease(entry, prefix, charge, terms)
  count = count + 1 -- leases sort in the order of the queue
  local id = terms and format('%s%06d|%d%s', prefix, count, charge, terms) or format('%s%06d', prefix, count)
  local n, m = #entries, #answer
  entries[n + 1], entries[n + 2] = id, entry
  deadlines[n + 1], deadlines[n + 2] = until_, id
  answer[m + 1] = id
  answer[m + 2] = any_losses and redis.call('HGET', key.losses, redis.sha1hex(entry)) or 0
  answer[m + 3] = entry
  if n >= 2 * SLICE then flush() end
end
-- include ../order/share.lua

local function urgency(from)
  local overdue = from.overdue
  if from.shared and any_dated(from) then -- of those, it is the next tenant's that count: deadlines get nobody ahead of others' turns
    local lane = next_lane(from)
    if lane and lane.own then overdue = math.max(overdue, now - lane.own) end
  end
  return overdue > 0 and overdue * from.late or overdue
end

local function serve_list(from, most)
  local head = redis.call('LRANGE', from.queue, -most, -1)
  local before, prefix = count, from.queue .. owner
  for i = #head, 1, -1 do
    if not fits(head[i]) then break end
    lease(head[i], prefix)
  end
  local got = count - before
  if got > 0 then redis.call('LTRIM', from.queue, 0, -got - 1) end
  from.length, from.took = from.length - got, from.took + got
end

while bytes > 0 do
  local first, second
  for _, from in ipairs(waiting) do
    if from.length + from.laned > 0 and count < from.most and not from.stuck then -- stuck: the rest is over a quota
      from.urgency = urgency(from)
      if not first or from.urgency > first.urgency then
        first, second = from, first
      elseif not second or from.urgency > second.urgency then
        second = from
      end
    end
  end
  if not first then break end
  local most, before = math.min(first.most - count, SLICE), count
  if second and first.fresh < second.urgency then most = math.min(most, share) end
  if first.shared then
    serve_lane(first, most, share)
  else
    serve_list(first, most)
  end
  if count > before and first.urgency > 0 then first.kept = true end
  first.overdue = first.fresh
end
flush()
for _, tier in ipairs(count == 0 and tiers or {}) do -- whoever rang for workers has nothing for them
  if tier.laned == 0 then redis.call('DEL', tier_key('wake', tier.queue)) end
end

local later = math.huge -- in how many seconds held jobs may be preempted
for _, from in ipairs(waiting) do
  if from.lanes then close(from) end
  local left = from.length + from.laned
  if from.took > 0 or left == 0 then
    redis.call('HINCRBY', key.taken, from.queue, from.took)
    if left == 0 then
      redis.call('HDEL', key.served, from.queue)
      redis.call('HDEL', key.waiting, from.queue)
    elseif from.kept or not from.yields then -- else it may come back, and goes on being passed over (finish.lua)
      redis.call('HSET', key.served, from.queue, string.format('%.6f', now))
    end
    if from.yields then
      answer[8] = math.min(answer[8], from.patience)
      local held = 'held:' .. from.queue -- resume.lua
      if from.kept then
        redis.call('HDEL', key.served, held)
      elseif left == 0 then
        local before = tonumber(redis.call('HGET', key.served, held) or from.served)
        redis.call('HSET', key.served, held, string.format('%.6f', math.min(before, from.served)))
      end
    end
  end
  if from.kept and from.yields then answer[7] = 1 end
  if left > 0 and from.grace and from.grace > 0 then later = math.min(later, from.grace) end
  if from.laned_before > 0 and (from.laned == 0 or from.stuck) then
    redis.call('DEL', tier_key('wake', from.queue)) -- what is left in lanes is over a quota
  end
end
answer[8] = string.format('%.6f', answer[8])
quotas.write()
if later < math.huge then answer[5] = string.format('%.6f', later) end
if quotas.blocked < math.huge then answer[6] = string.format('%.3f', quotas.blocked) end
if count == 0 and answer[3] > 0 and arg.idle == 1 and arg.suspects == SUSPECTS_LAST then try_suspect() end
return answer
