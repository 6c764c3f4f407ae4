#!lua flags=allow-oom
-- Take cancelled jobs, or all, out of one place where jobs wait, part by part: they are neither queued nor demand any
-- more.
-- KEYS  1 queue (list), 2 served (hash), 3 cancelled (sorted set), 4 withdrawals (sorted set)
-- ARGV  1 kind of place: 'listed' (the plain list, or a tenant's), 'dated' (a tenant's with deadlines of their own),
--       'suspects' or 'deferred' (of the queue's model), 2 tenant, or '' for the plain list, 3 how many jobs of the place
--       were looked at before, 4 most bytes to look at, 5 prefix of result keys, 6 the result of a cancelled job up to
--       its id, 7 result's time to live in ms, 8 1 to take out all jobs of the queue, 0 those that are cancelled
-- Returns {how many jobs of the place have been looked at and stay, or -1 at its end, id of a withdrawn job ('' of what
-- is not a job), ...}.
-- allow-oom: it frees memory.
-- include text.lua
-- include lanes.lua
local queue, kind, tenant, from, bytes = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local every = ARGV[8] == '1'
local MOST = 500 -- Lua hands over some thousand arguments at most
local EFFORT = 4096 -- bytes that are looked at in the time in which a job is taken out of the middle of a long list
local GONE = 'withdrawn' -- stands in a list for a job that is taken out of it in the same step
local listed = kind == 'listed' or kind == 'suspects'
local in_lane = kind == 'dated' or (kind == 'listed' and tenant ~= '' and tenant ~= DEFAULT)
local in_queue = kind == 'listed' or kind == 'dated'
local place
if kind == 'listed' then
  place = in_lane and tier_key('lane', queue, tenant) or queue
elseif kind == 'dated' then
  place = tier_key('dated', queue, tenant)
else
  place = model_key(kind, queue)
end

-- Where a job was queued, and its entry.
local function parts(entry)
  if in_queue then return in_lane and queue .. '/' .. tenant or queue, entry end
  return string.match(entry, '^([^|]+)|(.*)$')
end

-- The id of the message, which may be another than the first that is in it; '' if it has none.
local function own_id(entry)
  local at, own = parts(entry)
  local decoded, message = pcall(cjson.decode, at and message_of(at, own) or '')
  local id = decoded and type(message) == 'table' and type(message.headers) == 'table' and message.headers.id
  return type(id) == 'string' and id or ''
end

-- The id of a job that is to be taken out, or nil. cancelled: whether a job of the first id that is in it is cancelled.
local function chosen(entry, first_id, cancelled)
  if every then
    local at = in_queue and queue or parts(entry)
    return at and string.match(at, '^[^/]+') == queue and own_id(entry) or nil
  end
  return cancelled and own_id(entry) == first_id and first_id or nil
end

local function forget(entry, id)
  local at, own = parts(entry)
  local name, of = redis.sha1hex(own), string.match(at, '^[^/]+')
  for _, hash in ipairs({ 'losses', 'retries', 'history' }) do redis.call('HDEL', model_key(hash, queue), name) end
  if kind ~= 'deferred' then redis.call('HINCRBY', model_key('taken', queue), of, 1) end
  local result = ARGV[5] .. id
  if id ~= '' and not is_kept(redis.call('GET', result)) then
    local told = ARGV[6] .. cjson.encode(id) .. '}'
    redis.call('SET', result, told, 'PX', ARGV[7])
    redis.call('PUBLISH', result, told)
  end
end

local answer, took, n = { -1 }, 0, 16
while bytes > 0 do
  local entries = redis.call(listed and 'LRANGE' or 'ZRANGE', place, from, from + n - 1)
  if #entries == 0 then break end
  local ids, size, gone, withdrawn = {}, 0, {}, {}
  for i, entry in ipairs(entries) do
    ids[i], size = id_of(entry), size + #entry
  end
  local until_ = every and {} or redis.call('ZMSCORE', KEYS[3], unpack(ids))
  local looked = #entries
  for i, entry in ipairs(entries) do
    local id = chosen(entry, ids[i], until_[i])
    if id then
      gone[#gone + 1], withdrawn[#withdrawn + 1], answer[#answer + 1] = entry, id, id
      if listed then redis.call('LSET', place, from + i - 1, GONE) end
      forget(entry, id)
      bytes = bytes - EFFORT
      if bytes <= 0 then
        looked = i
        break
      end
    end
  end
  if #gone > 0 then redis.call('ZREM', KEYS[4], unpack(withdrawn)) end
  if #gone > 0 and not listed then
    redis.call('ZREM', place, unpack(gone))
    looked = looked - #gone
  end
  took, from, bytes = took + #gone, from + looked, bytes - size
  n = math.max(1, math.min(MOST, math.floor(bytes * #entries / size)))
end
if listed and took > 0 then -- all at once, as the list is gone through from its nearer end
  redis.call('LREM', place, 2 * from > redis.call('LLEN', place) and -took or took, GONE)
  from = from - took
end
if bytes <= 0 then answer[1] = from end
if took == 0 or not in_queue then return answer end

-- The tenant has no more jobs waiting, if that is so: fairness.py, Counters.leave.
local function leave(of)
  local list = of == DEFAULT and queue or tier_key('lane', queue, of)
  if redis.call('LLEN', list) + redis.call('ZCARD', tier_key('dated', queue, of)) > 0 then return end
  local counters = tier_key('counters', queue)
  local counter = redis.call('ZSCORE', counters, of)
  if not counter then return end
  redis.call('ZREM', counters, of)
  redis.call('HDEL', tier_key('reached', queue), of)
  redis.call('ZADD', tier_key('departed', queue), counter, of)
  if redis.call('ZCARD', counters) == 0 then
    redis.call('HSET', model_key('accounts', queue), 'left:' .. queue, counter)
  end
end

if in_lane then
  count_laned(queue, -took)
  if kind == 'dated' then
    local first = redis.call('ZRANGE', place, 0, 0, 'WITHSCORES')[2]
    if first then
      redis.call('ZADD', tier_key('due', queue), first, tenant)
    else
      redis.call('ZREM', tier_key('due', queue), tenant)
    end
  end
end
leave(tenant ~= '' and tenant or DEFAULT)
local counters = tier_key('counters', queue)
local others = redis.call('ZCARD', counters) - (redis.call('ZSCORE', counters, DEFAULT) and 1 or 0)
others = others + redis.call('EXISTS', tier_key('entrants', queue))
if others + redis.call('ZCARD', tier_key('dated', queue, DEFAULT)) == 0 then -- no lane has jobs
  redis.call('DEL', tier_key('wake', queue))
  if redis.call('LLEN', queue) == 0 then
    redis.call('HDEL', KEYS[2], queue)
    redis.call('HDEL', model_key('waiting', queue), queue)
  end
end
return answer
