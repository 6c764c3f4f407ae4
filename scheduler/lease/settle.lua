-- What a job that was taken from a lane has really cost its tenant; lanes.lua comes before this.
-- Its lease is 'place|owner:n|charge|weight|quotas', and tells what it was charged when it was taken: tokens, the
-- tenant's weight, and by which quotas it was counted (f: in flight, t: tokens per minute). Other leases charge nobody.
local owed, freed, debts = {}, {}, {}

-- cost: in tokens; 0 of a job that goes back, nil if nobody knows: then it stays as charged.
local function settle(lease, cost)
  local place, charge, weight, quotas = string.match(lease, '^([^|]+)|[^|]+|([^|]+)|([^|]+)|([^|]*)$')
  if not place then return end
  local queue, tenant = string.match(place, '^([^/]+)/(.+)$')
  if not queue then
    queue, tenant = place, DEFAULT
  end
  local more = cost and cost - charge or 0
  owed[queue] = owed[queue] or {}
  owed[queue][tenant] = (owed[queue][tenant] or 0) + more / weight
  if string.find(quotas, 'f', 1, true) then
    freed[queue] = freed[queue] or {}
    freed[queue][tenant] = (freed[queue][tenant] or 0) + 1
  end
  if string.find(quotas, 't', 1, true) then
    debts[queue] = debts[queue] or {}
    debts[queue][tenant] = (debts[queue][tenant] or 0) + more
  end
end

-- Write down what all of them have cost.
local function settle_all()
  for queue, tenants in pairs(owed) do
    for tenant, service in pairs(tenants) do
      if service ~= 0 and not redis.call('ZADD', tier_key('counters', queue), 'XX', 'INCR', service, tenant) then
        redis.call('ZADD', tier_key('departed', queue), 'XX', 'INCR', service, tenant)
      end
    end
  end
  for queue, tenants in pairs(freed) do
    local held = model_key('held', queue)
    for tenant, jobs in pairs(tenants) do
      if redis.call('HINCRBY', held, tenant, -jobs) <= 0 then redis.call('HDEL', held, tenant) end
    end
    for _, other in ipairs(redis.call('HKEYS', model_key('served', queue))) do
      -- Whom the quota held up goes on, whatever its tier. Such a queue was looked at, and not emptied (claim.lua).
      if not string.find(other, ':', 1, true) and redis.call('EXISTS', tier_key('counters', other)) == 1 then
        wake(other)
      end
    end
  end
  for queue, tenants in pairs(debts) do
    local spent = model_key('spent', queue)
    for tenant, tokens in pairs(tenants) do
      local debt, at = string.match(redis.call('HGET', spent, tenant) or '', '^(.*)@(.*)$')
      if debt and tokens ~= 0 then redis.call('HSET', spent, tenant, string.format('%.3f@%s', debt + tokens, at)) end
    end
  end
end
