-- Push messages onto one queue, all or none: onto its plain list, or a tenant's lane (lanes.lua).
-- KEYS  1 queue (list), 2 waiting (hash), 3 lanes (hash), 4.. one submission marker (string) for each message that has
--       an idempotency key
-- ARGV  1 most jobs the queue may hold, 2 marker time to live in ms, 3 tenant, or '' for the plain list,
--       4 most jobs of the tenant in this queue, or '', 5 in how many seconds a job is due, 6 prefix of result keys,
--       7 all queues of the model, with a '|' between them, 8 1 if this user may read what is queued, 0 if it may only
--       count, 9 most of the queue that the tenant may fill, as a share of what others leave of it, 10 1 if this user
--       may give tenants their turns, else 0, then for each message: the index of its marker in KEYS, or 0; its own deadline in Unix seconds, or ''; the message
-- Returns {-1, length} when the queue is full, {-2, the tenant's jobs, how long the one that was taken last had waited
-- in seconds, how many are allowed} when the tenant has too many in it, else {pushed, length}. A message whose marker exists was submitted before and is not
-- pushed again, unless its job is gone.
-- include contract/queue/text.lua
-- include contract/queue/lanes.lua
-- include gone.lua
if ARGV[10] ~= '1' then -- what decides between tenants is out of this user's reach
  enter = function(queue, tenant)
    if not redis.call('ZSCORE', tier_key('counters', queue), tenant) then
      redis.call('SADD', tier_key('entrants', queue), tenant)
    end
  end
end
local queue, tenant, FIRST = KEYS[1], ARGV[3], 11
local before, any, coming = {}, false, 0
for i = FIRST, #ARGV, 3 do
  local marker = tonumber(ARGV[i])
  if marker ~= 0 and redis.call('GET', KEYS[marker]) then
    before[id_of(ARGV[i + 2])], any = true, true
  else
    coming = coming + 1
  end
end
local missing = {}
if any then
  local queues = {}
  for name in string.gmatch(ARGV[7], '[^|]+') do queues[#queues + 1] = name end
  missing = gone(queues, tenant ~= '' and tenant or DEFAULT, before, ARGV[6], ARGV[8] == '1')
  for _ in pairs(missing) do coming = coming + 1 end
end
local plain = redis.call('LLEN', queue)
local length = plain + math.max(0, tonumber(redis.call('HGET', KEYS[3], 'jobs:' .. queue) or 0))
local most, share = tonumber(ARGV[1]), tonumber(ARGV[9])
if coming > 0 and length + coming > most then return {-1, length} end
local own_lane = tenant ~= '' and tenant ~= DEFAULT
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local due = now + tonumber(ARGV[5])
-- While the queue is emptier than one tenant alone may fill it, nobody has to be counted.
if coming > 0 and (ARGV[4] ~= '' or length + coming > share * most) then
  local lane = own_lane and tier_key('lane', queue, tenant) or queue
  local dated = tier_key('dated', queue, tenant ~= '' and tenant or DEFAULT)
  local own = (own_lane and redis.call('LLEN', lane) or plain) + redis.call('ZCARD', dated)
  local allowed = math.max(1, math.floor(share * (most - (length - own))))
  if ARGV[4] ~= '' then allowed = math.min(allowed, tonumber(ARGV[4])) end
  if own + coming > allowed then
    local reached = own_lane and redis.call('HGET', tier_key('reached', queue), tenant)
    local waited = reached and due - (tonumber(reached) or due) or 0
    return {-2, own, string.format('%.3f', waited), allowed}
  end
end
local prefix = own_lane and string.format('%.6f|', due) or ''
local dated, undated = {}, {}
-- Whether it is to be pushed; its marker is then there.
local function is_new(marker, message)
  if marker == 0 or redis.call('SET', KEYS[marker], 1, 'NX', 'PX', ARGV[2]) then return true end
  local id = id_of(message)
  if not missing[id] then return false end
  missing[id] = nil -- once
  redis.call('SET', KEYS[marker], 1, 'PX', ARGV[2])
  return true
end
for i = FIRST, #ARGV, 3 do
  local deadline, message = ARGV[i + 1], ARGV[i + 2]
  if is_new(tonumber(ARGV[i]), message) then
    if deadline ~= '' and tonumber(deadline) < due then
      dated[#dated + 1] = deadline .. '!' .. message
    else
      undated[#undated + 1] = prefix .. message
    end
  end
end
local place, pushed = queue .. '/' .. tenant, #dated + #undated
-- It waited before: stock producers do not say so.
if plain > 0 and (#dated > 0 or own_lane and pushed > 0) then enter(queue, DEFAULT) end
for _, entry in ipairs(dated) do put(place, entry, false) end
if #undated > 0 then put_all(own_lane and place or queue, undated, false) end
if length == 0 and pushed > 0 then
  redis.call('HSET', KEYS[2], queue, string.format('%d.%06d', clock[1], clock[2]))
end
return {pushed, length + pushed}
