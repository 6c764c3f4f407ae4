-- Which jobs are gone: they were submitted, have no result, and are in none of the places where a job can be, because
-- their queue was emptied, or Redis has lost writes. contract/queue/text.lua and lanes.lua come before this.
-- No job is ever between two places: every script that moves a job does so in one step of Redis, and this looks
-- everywhere in one step as well. What it cannot look through counts as known: because that would hold up Redis for
-- long, until the queues are shorter; or for lack of rights, unless the place is empty.
-- constant LOOK_BYTES from submission.py
-- constant ENTRY_BYTES from submission.py

-- queues: all of the model, as a job may have been queued in another tier before; tenant: quoted, whose jobs these are;
-- ids: a set; results: prefix of result keys; may_read: whether entries may be read, and not only counted.
-- Returns the ids of those that are gone, as a set.
local function gone(queues, tenant, ids, results, may_read)
  local left, count, bytes = {}, 0, LOOK_BYTES
  for id in pairs(ids) do
    if not is_final(redis.call('GET', results .. id)) then
      left[id], count = true, count + 1
    end
  end

  local function see(entry)
    bytes = bytes - #entry - ENTRY_BYTES
    local id = id_of(entry)
    if left[id] then
      left[id], count = nil, count - 1
    end
  end

  -- Each of these tells whether it has looked through all of a place, or has found all jobs.
  local function look(place, length, range)
    local entries, from, n = redis.pcall(length, place), 0, 16
    if type(entries) ~= 'number' then return false end
    while from < entries and count > 0 do
      local page = may_read and bytes > 0 and redis.pcall(range, place, from, from + n - 1)
      if not page or page.err then return false end
      local before = bytes
      for _, entry in ipairs(page) do see(entry) end
      from = from + #page
      n = math.max(1, math.min(500, math.floor(bytes * #page / (before - bytes))))
    end
    return true
  end

  local function look_in_flight(place)
    local jobs, cursor = redis.pcall('HLEN', place), '0'
    if type(jobs) ~= 'number' then return false end
    if jobs == 0 then return true end
    repeat
      local page = may_read and bytes > 0 and redis.pcall('HSCAN', place, cursor, 'COUNT', 50)
      if not page or page.err then return false end
      cursor = page[1]
      for i = 2, #page[2], 2 do see(page[2][i]) end
    until cursor == '0' or count == 0
    return true
  end

  local function look_everywhere()
    if not look_in_flight(model_key('inflight', queues[1])) then return false end
    if not look(model_key('suspects', queues[1]), 'LLEN', 'LRANGE') then return false end
    if not look(model_key('deferred', queues[1]), 'ZCARD', 'ZRANGE') then return false end
    for _, queue in ipairs(queues) do
      if not look(tier_key('dated', queue, tenant), 'ZCARD', 'ZRANGE') then return false end
      if not look(tenant == DEFAULT and queue or tier_key('lane', queue, tenant), 'LLEN', 'LRANGE') then return false end
    end
    return true
  end
  return count > 0 and look_everywhere() and left or {}
end
