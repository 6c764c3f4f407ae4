-- Where a job waits among the queues of its model, looked for at both ends of each list.
-- KEYS  1.. queues (lists), one for each tier; the lanes of their tenants have names of their own (lanes.lua)
-- ARGV  1 job id, 2 most messages to look at from either end of a list
-- Returns {place of its queue among KEYS (0 when it was not found), jobs of that queue before it, whether its tenant was
--       served more than another that waits (1 or 0), jobs waiting in each queue}.
-- include ../contract/queue/lanes.lua
local id, most = ARGV[1], tonumber(ARGV[2])
local answer = {0, 0, 0}
local SLICE = 250 -- what is copied at a time, if it is found at once

-- From the head, which is the right end: index -1 is the next to be taken.
local function look(list, first, last)
  for from = first, last, SLICE do
    local upto = math.min(from + SLICE - 1, last)
    local entries = redis.call('LRANGE', list, -upto - 1, -from - 1)
    for i = #entries, 1, -1 do
      if string.find(entries[i], id, 1, true) then return from + #entries - i end
    end
  end
end

local function look_at_ends(list, length)
  local ahead = look(list, 0, math.min(most, length) - 1)
  if not ahead and length > most then ahead = look(list, math.max(most, length - most), length - 1) end
  return ahead
end

-- Jobs of one lane before it: those that are due by themselves come with the others, and count as if before them.
local function in_lane(queue, tenant)
  if tenant == DEFAULT then return look_at_ends(queue, redis.call('LLEN', queue)) end
  local dated = tier_key('dated', queue, tenant)
  for i, entry in ipairs(redis.call('ZRANGE', dated, 0, most - 1)) do
    if string.find(entry, id, 1, true) then return i - 1 end
  end
  local lane = tier_key('lane', queue, tenant)
  local ahead = look_at_ends(lane, redis.call('LLEN', lane))
  return ahead and ahead + redis.call('ZCARD', dated)
end

local function waiting(queue, tenant)
  if tenant == DEFAULT then return redis.call('LLEN', queue) end
  return redis.call('LLEN', tier_key('lane', queue, tenant)) + redis.call('ZCARD', tier_key('dated', queue, tenant))
end

for place, queue in ipairs(KEYS) do
  local length = redis.pcall('LLEN', queue)
  if type(length) ~= 'number' then length = 0 end -- somebody stored something else there
  local laned = math.max(0, tonumber(redis.call('HGET', model_key('lanes', queue), 'jobs:' .. queue) or 0))
  answer[#answer + 1] = length + laned
  if answer[1] == 0 and length + laned > 0 then
    local tenants = laned > 0 and redis.call('ZRANGE', tier_key('counters', queue), 0, most - 1) or {}
    local known = {}
    for _, tenant in ipairs(tenants) do known[tenant] = true end
    for _, tenant in ipairs(laned > 0 and redis.call('SRANDMEMBER', tier_key('entrants', queue), 200) or {}) do
      if not known[tenant] then
        known[tenant] = true
        tenants[#tenants + 1] = tenant
      end
    end
    if length > 0 and not known[DEFAULT] then tenants[#tenants + 1] = DEFAULT end
    for turn, tenant in ipairs(tenants) do
      local own = in_lane(queue, tenant)
      if own then
        local ahead = own
        for _, other in ipairs(tenants) do -- in turns: of each other tenant about as many go before it
          if other ~= tenant then ahead = ahead + math.min(waiting(queue, other), own + (turn > 1 and 1 or 0)) end
        end
        answer[1], answer[2], answer[3] = place, ahead, #tenants > 1 and turn > 1 and 1 or 0
        break
      end
    end
  end
end
return answer
