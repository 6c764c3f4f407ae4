#!lua flags=allow-oom
-- End jobs: store and announce their results and give up their leases, in one step. The first result wins, unless
-- it is a failure (text.lua).
-- KEYS  1 inflight (hash), 2 leases (sorted set), 3 losses (hash), 4 retries (hash), 5 history (hash),
--       6 served (hash), 7.. one result (string and channel) for each job
-- ARGV  1 results' time to live in ms, 2 queues of preemptible tiers, '|name|' of each,
--       then for each job: lease, result ('' to store none), and if it was charged to a tenant and its result tells:
--       what it has cost, output tokens (else '', '')
-- Returns the leases that were no longer held: those jobs belong to another worker and were left alone.
-- include ../../producer/contract/queue/text.lua
-- include ../../producer/contract/queue/lanes.lua
-- include settle.lua
local LEARN = 0.02 -- weight of a job in the mean of what a job makes
local lost = {}
local told, made, queue, served = 0, 0, nil, {}
local any_troubled = redis.call('EXISTS', KEYS[3], KEYS[4]) > 0
for i = 7, #KEYS do
  local at = 3 + (i - 7) * 4
  local lease, result, cost, output = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  if any_troubled then
    local message = redis.call('HGET', KEYS[1], lease)
    if message then
      local name = redis.sha1hex(message)
      for k = 3, 5 do redis.call('HDEL', KEYS[k], name) end
    end
  end
  if redis.call('HDEL', KEYS[1], lease) == 0 then
    lost[#lost + 1] = lease
  else
    redis.call('ZREM', KEYS[2], lease)
    settle(lease, tonumber(cost))
    if ARGV[2] ~= '' then served[string.match(lease, '^[^|/]+')] = true end
    if cost ~= '' then
      told, made, queue = told + 1, made + output, string.match(lease, '^[^|/]+')
    end
    if result ~= '' then
      local stored = redis.call('SET', KEYS[i], result, 'NX', 'PX', ARGV[1])
      if not stored then
        if not is_kept(redis.call('GET', KEYS[i])) then
          redis.call('SET', KEYS[i], result, 'PX', ARGV[1])
          stored = true
        end
      end
      if stored then redis.call('PUBLISH', KEYS[i], result) end
    end
  end
end
settle_all()
for name in pairs(served) do -- a job of a preemptible tier has got through: its queue was served (claim.lua)
  if string.find(ARGV[2], '|' .. name .. '|', 1, true) then
    redis.call('HDEL', KEYS[6], 'held:' .. name) -- resume.lua
    if redis.call('HEXISTS', KEYS[6], name) == 1 then
      local clock = redis.call('TIME')
      redis.call('HSET', KEYS[6], name, string.format('%.6f', clock[1] + clock[2] / 1000000))
    end
  end
end
if told > 0 then
  local accounts = model_key('accounts', queue)
  local before = redis.call('HGET', accounts, 'output')
  local mean = made / told
  if before then mean = before + (mean - before) * (1 - (1 - LEARN) ^ told) end
  redis.call('HSET', accounts, 'output', string.format('%.3f', mean))
end
return lost
