#!lua flags=allow-oom
-- Take back the jobs of workers that fell silent: to the head of their queue or lane; one loss before the last to the
-- suspects, to be run alone, so that its neighbours are not taken down with it again; after the last to the dead
-- letters with a failed result, so that nobody waits for it for ever. Deferred jobs that are due are queued again.
-- KEYS  1 inflight (hash), 2 leases (sorted set), 3 losses (hash), 4 taken (hash), 5 dead (stream),
--       6 suspects (list), 7 deferred (sorted set), 8 retries (hash), 9 history (hash)
-- ARGV  1 most losses a job may cause, 2 losses that make a suspect, 3 most jobs to look at,
--       4 prefix of result keys, 5 results' time to live in ms, 6 lease in seconds, 7 longest delay of a deferred job
--       in seconds, 8 server time by which leases count as expired; 0 after the clock was set forward, when only
--       leases at 0 do (Queue.expire), 9 most bytes of dead letters, 10 for how many seconds they are kept
-- Returns {requeued, buried}.
-- include ../../producer/contract/queue/text.lua
-- include fail.lua
-- include ../../producer/contract/queue/lanes.lua
-- include settle.lua
-- include letters.lua
-- include resume.lua
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local requeued, buried = 0, 0

local function requeue(place, message, losses)
  if losses >= tonumber(ARGV[2]) then
    redis.call('RPUSH', KEYS[6], place .. '|' .. message)
  else
    put(place, message, true)
    resume(string.match(place, '^[^/]+'))
  end
  redis.call('HINCRBY', KEYS[4], string.match(place, '^[^/]+'), -1)
end

-- No lease and no delay is longer than its length from now on, unless the clock was set back.
local function shorten(key, most_s, to_s)
  local until_ = string.format('%.6f', now + to_s)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, now + most_s, '+inf', 'LIMIT', 0, ARGV[3])) do
    redis.call('ZADD', key, until_, member)
  end
end
-- Twice: where the setting was lowered meanwhile, workers that hold by the old one are not cut short.
shorten(KEYS[2], 2 * tonumber(ARGV[6]) + 1, ARGV[6])
shorten(KEYS[7], 2 * tonumber(ARGV[7]) + 1, ARGV[7])
local lapsed = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', math.min(now, tonumber(ARGV[8])), 'LIMIT', 0, ARGV[3])
for i = #lapsed, 1, -1 do -- the oldest last, so that it is the head again
  local lease = lapsed[i]
  local message = redis.call('HGET', KEYS[1], lease)
  if message then
    local place, owner = string.match(lease, '^([^|]+)|([^|]+)')
    local name = redis.sha1hex(message)
    local losses = redis.call('HINCRBY', KEYS[3], name, 1)
    local history = (redis.call('HGET', KEYS[9], name) or '')
      .. string.format('%.3f lost with %s\n', now, owner)
    if losses < tonumber(ARGV[1]) then
      redis.call('HSET', KEYS[9], name, history)
      requeue(place, message, losses)
      settle(lease, 0)
      requeued = requeued + 1
    else
      local reason = 'it lost ' .. losses .. ' workers while it ran'
      local most, age_s = tonumber(ARGV[9]), tonumber(ARGV[10])
      keep_letter(KEYS[5], place, reason, losses, history, message_of(place, message), most, age_s)
      for _, key in ipairs({KEYS[3], KEYS[8], KEYS[9]}) do redis.call('HDEL', key, name) end
      fail(message_of(place, message), reason, ARGV[4], ARGV[5])
      settle(lease, nil)
      buried = buried + 1
    end
    redis.call('HDEL', KEYS[1], lease)
  end
  redis.call('ZREM', KEYS[2], lease)
end
forget_old_letters(KEYS[5], tonumber(ARGV[10]))
local due = redis.call('ZRANGEBYSCORE', KEYS[7], '-inf', now, 'LIMIT', 0, ARGV[3])
for i = #due, 1, -1 do
  local place, message = string.match(due[i], '^([^|]+)|(.*)$')
  requeue(place, message, tonumber(redis.call('HGET', KEYS[3], redis.sha1hex(message)) or 0))
  redis.call('ZREM', KEYS[7], due[i])
end
settle_all()
return {requeued, buried}
