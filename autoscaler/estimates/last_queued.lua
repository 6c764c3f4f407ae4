-- The job that is the last of a queue by the rule that readers' estimates go by (producer/estimates/locate.lua): tenants
-- take turns, so the newest job of the tenant with most jobs waiting; of several, the one whose turn is last.
-- KEYS  1 queue (list); the lanes of its tenants have names of their own (lanes.lua)
-- ARGV  1 most tenants to look at
-- Returns the job's id; '' when no job waits or the message has no id.
-- include ../../producer/contract/queue/lanes.lua
local queue = KEYS[1]
enter_announced(queue)
local list, longest, known = queue, 0, false
local function look(name)
  local length = redis.pcall('LLEN', name)
  if type(length) == 'number' and length > 0 and length >= longest then -- else somebody stored something else there
    list, longest = name, length
  end
end
for _, tenant in ipairs(redis.call('ZRANGE', tier_key('counters', queue), 0, ARGV[1] - 1)) do
  known = known or tenant == DEFAULT
  look(tenant == DEFAULT and queue or tier_key('lane', queue, tenant))
end
if not known then look(queue) end
if longest == 0 then return '' end
local id = string.match(redis.call('LINDEX', list, 0), '"id": ?"([%w%p]-)"') -- headers come before others that have one
return id and #id <= 256 and id or ''
