#!lua flags=allow-oom
-- Count the jobs in the lanes of a model's queues again, which producers count and may miscount, and give tenants their
-- counters of which producers say that they have jobs waiting.
-- KEYS  1.. queues (lists); ARGV  1 most tenants of a queue: of one with more, claims see to it
-- include ../../producer/contract/queue/lanes.lua
for _, queue in ipairs(KEYS) do
  local lanes, field = model_key('lanes', queue), 'jobs:' .. queue
  local said = redis.call('HGET', lanes, field)
  if said then
    enter_announced(queue)
    local counters = tier_key('counters', queue)
    local few = redis.call('ZCARD', counters) <= tonumber(ARGV[1])
    local jobs, dated = 0, few and redis.call('EXISTS', tier_key('due', queue)) == 1
    for _, tenant in ipairs(few and redis.call('ZRANGE', counters, 0, -1) or {}) do
      if tenant ~= DEFAULT then jobs = jobs + redis.call('LLEN', tier_key('lane', queue, tenant)) end
      if dated then jobs = jobs + redis.call('ZCARD', tier_key('dated', queue, tenant)) end
    end
    if few and jobs ~= tonumber(said) then
      redis.call('HSET', lanes, field, string.format('%d', jobs))
    end
  end
end
