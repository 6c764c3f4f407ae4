-- One queue's lanes at a claim: whose turn it is, and which of its jobs (fairness.py, lanes.py).
-- from: {queue, length (of the plain list), laned (jobs in lanes), said (what is written down as such), due (when the
-- plain list's head is due)}. Of claim.lua this needs now, owner, mean, quotas, fits and lease.
-- Producers write entries, their scores and the counts: none is trusted, and each loop takes a job or ends.
local PAGE = 5 -- lanes looked at together: as many as a claim takes turns at, and one to compare with
-- constant ENVELOPE_BYTES from fairness.py
-- constant BYTES_PER_TOKEN from fairness.py
-- constant OUTPUT from fairness.py
local made, sub = OUTPUT * mean, string.sub

local function charge_of(length)
  local tokens = (length - ENVELOPE_BYTES) / BYTES_PER_TOKEN
  if tokens < 1 then tokens = 1 end
  tokens = tokens + made
  return tokens - tokens % 1
end

-- Whether any tenant may have jobs with a deadline of their own.
local function any_dated(from)
  if from.any_dated == nil then from.any_dated = redis.call('EXISTS', tier_key('due', from.queue)) == 1 end
  return from.any_dated
end

-- The tenant's job that is due first: whether it is one with a deadline of its own, and when the others' head is due.
local function look(from, lane)
  lane.own, lane.dated, lane.front = nil, nil, nil
  if not any_dated(from) then return end
  lane.dated = tonumber(redis.call('ZRANGE', tier_key('dated', from.queue, lane.tenant), 0, 0, 'WITHSCORES')[2])
  if not lane.dated then return end
  lane.front = math.huge
  if lane.tenant == DEFAULT then
    if from.length > 0 then lane.front = from.due end
  else
    local head = redis.call('LINDEX', lane.list, -1)
    if head then lane.front = due_of(head) or -math.huge end -- at once, to the dead letters
  end
  if lane.dated <= lane.front then lane.own = lane.dated end
end

local function load_page(from)
  if not from.lanes then
    from.counters = tier_key('counters', from.queue)
    from.lanes, from.loaded, from.gone, from.last = {}, 0, 0, -math.huge
    from.open = 0 -- lanes with jobs that the plain list does not count
    from.before, from.after = string.match(tier_key('lane', from.queue, '|'), '^(.*)|(.*)$')
  end
  local page = redis.call('ZRANGE', from.counters, from.loaded, from.loaded + PAGE, 'WITHSCORES')
  from.more = #page > 2 * PAGE
  for i = 1, math.min(#page, 2 * PAGE), 2 do
    local tenant = page[i]
    local lane = { tenant = tenant, counter = tonumber(page[i + 1]), quota = quotas.of(tenant) }
    lane.list = tenant == DEFAULT and from.queue or from.before .. tenant .. from.after
    from.last, from.loaded = lane.counter, from.loaded + 1
    look(from, lane)
    lane.open = (lane.tenant ~= DEFAULT or lane.dated) and 1 or 0
    from.open = from.open + lane.open
    lane.out = not quotas.allow(lane.quota)
    from.lanes[from.loaded] = lane
  end
end

-- The lane that goes next; nil when a quota holds up all that are left.
local function next_lane(from)
  if not from.lanes then load_page(from) end
  while true do
    local best
    for _, lane in ipairs(from.lanes) do
      if not lane.out and (not best or lane.counter < best.counter) then best = lane end
    end
    if best and not quotas.allow(best.quota) then
      best.out = true -- what it may take was taken from another queue
    elseif not from.more or (best and best.counter <= from.last) then
      return best
    else
      load_page(from)
    end
  end
end

-- Up to most of a tenant's jobs with a deadline of their own that are due before its others; returns how many, and
-- what they were charged.
local function take_dated(from, lane, most, terms)
  local dated, first_due = tier_key('dated', from.queue, lane.tenant), tier_key('due', from.queue)
  local jobs = redis.call('ZRANGE', dated, 0, most - 1, 'WITHSCORES')
  local prefix, taken, total = from.queue .. '/' .. lane.tenant .. owner, 0, 0
  for i = 1, #jobs, 2 do
    local entry = jobs[i]
    if tonumber(jobs[i + 1]) > lane.front or not fits(entry) then break end
    local charge = charge_of(#entry - DUE - 1)
    lease(entry, prefix, charge, terms)
    taken, total = taken + 1, total + charge
  end
  if taken > 0 then redis.call('ZREMRANGEBYRANK', dated, 0, taken - 1) end
  local first = redis.call('ZRANGE', dated, 0, 0, 'WITHSCORES')[2]
  if first then
    redis.call('ZADD', first_due, first, lane.tenant)
  else
    redis.call('ZREM', first_due, lane.tenant)
  end
  from.laned = from.laned - taken
  return taken, total
end

-- Up to most of a tenant's other jobs; returns the same, and whether its list is empty now.
local function take_listed(from, lane, most, terms)
  local head = redis.call('LRANGE', lane.list, -most - 1, -1) -- one more, to see whether there is one
  local plain = lane.tenant == DEFAULT
  local prefix = (plain and from.queue or from.queue .. '/' .. lane.tenant) .. owner
  local taken, total, beside, reached = 0, 0, plain and 0 or DUE + 1, nil
  for i = #head, math.max(1, #head - most + 1), -1 do
    local entry = head[i]
    if not fits(entry) then break end
    local charge = charge_of(#entry - beside)
    lease(entry, prefix, charge, terms)
    taken, total, reached = taken + 1, total + charge, entry
  end
  if taken > 0 then redis.call('LTRIM', lane.list, 0, -taken - 1) end
  lane.reached = reached and not plain and sub(reached, 1, DUE) or lane.reached
  if plain then
    from.length = from.length - taken
  else
    from.laned = from.laned - taken
  end
  return taken, total, taken == #head
end

-- Serve the queue's next lane once: up to most jobs, share of them while others wait.
local function serve_lane(from, most, share)
  local lane = next_lane(from)
  if not lane then
    from.stuck = true
    return
  end
  if from.more or from.loaded - from.gone > 1 then most = math.min(most, share) end
  most = math.min(most, lane.quota.jobs, lane.quota.minute and 1 or most) -- by the job, to see when it is enough
  local terms = '|' .. lane.quota.weight .. '|' .. lane.quota.names
  local taken, total, empty = 0, 0, false
  repeat
    local jobs, charge
    if lane.own then
      jobs, charge = take_dated(from, lane, most - taken, terms)
      empty = lane.front == math.huge
    else
      jobs, charge, empty = take_listed(from, lane, lane.dated and 1 or most - taken, terms)
    end
    taken, total = taken + jobs, total + charge
    look(from, lane)
    empty = empty and not lane.dated
  until taken == most or jobs == 0 or empty
  lane.counter, lane.used = lane.counter + total / lane.quota.weight, true
  from.took = from.took + taken
  quotas.charge(lane.quota, taken, total)
  if empty then
    lane.gone, from.gone, from.left = true, from.gone + 1, lane.counter
  end
  local open = not empty and (lane.tenant ~= DEFAULT or lane.dated) and 1 or 0
  from.open, lane.open = from.open + open - lane.open, open
  from.laned = math.max(from.laned, from.open + (from.more and 1 or 0))
  lane.out = empty or not quotas.allow(lane.quota)
end

-- Count the jobs that are left in lanes, all of which are loaded.
local function recount(from)
  from.laned = 0
  for _, lane in ipairs(from.lanes) do
    if not lane.gone then
      if lane.tenant ~= DEFAULT then from.laned = from.laned + redis.call('LLEN', lane.list) end
      if any_dated(from) then
        from.laned = from.laned + redis.call('ZCARD', tier_key('dated', from.queue, lane.tenant))
      end
    end
  end
end

-- Write down what the lanes were charged, and which of them are empty now.
local function close(from)
  local all_empty = not from.more and from.gone == from.loaded
  if not from.more and from.loaded <= PAGE then recount(from) end
  local charged, left, gone, reached = {}, {}, {}, {}
  for _, lane in ipairs(from.lanes) do
    if lane.used then
      local to = lane.gone and left or charged
      to[#to + 1] = lane.counter
      to[#to + 1] = lane.tenant
      if lane.gone then gone[#gone + 1] = lane.tenant end
      if lane.reached and not lane.gone then
        reached[#reached + 1] = lane.tenant
        reached[#reached + 1] = lane.reached
      end
    end
  end
  if #reached > 0 then redis.call('HSET', tier_key('reached', from.queue), unpack(reached)) end
  if #charged > 0 then redis.call('ZADD', from.counters, unpack(charged)) end
  if #gone > 0 then
    redis.call('ZREM', from.counters, unpack(gone))
    redis.call('HDEL', tier_key('reached', from.queue), unpack(gone))
    redis.call('ZADD', tier_key('departed', from.queue), unpack(left))
    if all_empty then redis.call('HSET', model_key('accounts', from.queue), 'left:' .. from.queue, from.left) end
  end
  if from.laned ~= from.said then
    redis.call('HSET', model_key('lanes', from.queue), 'jobs:' .. from.queue, string.format('%d', from.laned))
  end
end
