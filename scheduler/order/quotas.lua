-- Quotas of tenants, as far as a claim keeps them: jobs in flight, tokens per minute (producer/contract/fleet/tenants.py).
-- held: jobs in flight by tenant (hash); spent: 'tokens@instant' by tenant (hash), which drain at the rate allowed: a
-- leaky bucket that holds a minute's worth. policies: JSON, for each tenant and for '*' {weight, in_flight, per_minute}.
local function quotas_of(held, spent, policies, now)
  local known = policies ~= '' and cjson.decode(policies) or {}
  local found = {}
  local quotas = { blocked = math.huge } -- in how many seconds another lane may go on that is held up now

  -- The tenant's weight, and what it may still take; read once for each claim.
  function quotas.of(tenant)
    local own = found[tenant]
    if own then return own end
    local policy = known[tenant] or known['*'] or {}
    own = { weight = policy.weight or 1, names = '', jobs = math.huge, taken = 0 }
    if policy.in_flight then
      own.names = 'f'
      own.jobs = policy.in_flight - tonumber(redis.call('HGET', held, tenant) or 0)
    end
    if policy.per_minute then
      own.names = own.names .. 't'
      own.minute = policy.per_minute
      local debt, at = string.match(redis.call('HGET', spent, tenant) or '', '^(.*)@(.*)$')
      own.debt = debt and math.max(0, debt - math.max(0, now - at) * own.minute / 60) or 0
    end
    found[tenant] = own
    return own
  end

  -- Whether the tenant may take another job now.
  function quotas.allow(own)
    if own.minute and own.debt >= own.minute then
      quotas.blocked = math.min(quotas.blocked, (own.debt - own.minute) * 60 / own.minute + 0.001)
      return false
    end
    return own.jobs > 0
  end

  function quotas.charge(own, jobs, tokens)
    own.jobs, own.taken = own.jobs - jobs, own.taken + jobs
    if own.minute then own.debt = own.debt + tokens end
  end

  function quotas.write()
    for tenant, own in pairs(found) do
      if own.taken > 0 and string.find(own.names, 'f', 1, true) then redis.call('HINCRBY', held, tenant, own.taken) end
      if own.taken > 0 and own.minute then
        redis.call('HSET', spent, tenant, string.format('%.3f@%.6f', own.debt, now))
      end
    end
  end
  return quotas
end
