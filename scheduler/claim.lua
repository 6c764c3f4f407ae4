#!lua flags=allow-oom
-- Take up to n jobs of one model from its queues, the most urgent queue first, and lease them, in one step;
-- or none, while a larger batch is worth waiting for (scheduler/window.py).
-- A message is never decoded or re-encoded here: whatever was pushed is what is leased.
-- KEYS  1 inflight (hash), 2 leases (sorted set), 3 losses (hash), 4 served (hash), 5 taken (hash),
--       6 cancelled (sorted set), 7 suspects (list), 8 waiting (hash), 9.. queues (lists)
-- ARGV  1 n, 2 most bytes (at least one message is taken whatever its size), 3 lease in seconds,
--       4 owner token of this claim, 5 whether the worker holds nothing (1 or 0),
--       6 jobs that make a full batch, 7 seconds until the device is free, 8 seconds that a batch takes,
--       9 seconds until another job is expected (window.py: Hold), then for each queue:
--       head start, growth per second, growth when late (priority.py: Rank), seconds for which its head may be held
-- Returns {server time, cancelled jobs remembered, suspects waiting, jobs that ever arrived,
--       seconds until to look again ('' when a batch is due, or nothing waits), lease, losses, message, lease, ...}.
-- A suspect (reap.lua) goes before everything else, but only to a worker that holds nothing, and alone;
-- while one waits the others get nothing new, so that one of them soon holds nothing.
-- allow-oom: taking work is what frees memory. Everything that could fail comes before the pop.
-- include window.lua
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local room, bytes = tonumber(ARGV[1]), tonumber(ARGV[2])

local FIRST = 9 -- of the queues
local answer = {string.format('%.6f', now), redis.call('ZCARD', KEYS[6]), redis.call('LLEN', KEYS[7]), 0, ''}
local until_ = string.format('%.6f', now + tonumber(ARGV[3]))
if answer[3] > 0 then
  if ARGV[5] == '1' then
    local queue, message = string.match(redis.call('LINDEX', KEYS[7], -1), '^([^|]+)|(.*)$')
    local lease = queue .. '|' .. ARGV[4] .. ':000000'
    redis.call('HSET', KEYS[1], lease, message)
    redis.call('ZADD', KEYS[2], until_, lease)
    redis.call('LTRIM', KEYS[7], 0, -2)
    redis.call('HINCRBY', KEYS[5], queue, 1)
    answer[6], answer[7], answer[8] = lease, redis.call('HGET', KEYS[3], redis.sha1hex(message)) or 0, message
  end
  return answer
end

-- Since when, in a hash, by the clock of the server; from now on, if it says nothing.
local function since(hash, queue)
  local at = redis.call('HGET', hash, queue)
  if at then return tonumber(at) end
  redis.call('HSET', hash, queue, string.format('%.6f', now))
  return now
end

-- In how many seconds the earliest deadline passes, of the jobs that are next; our producers write it in front.
local NEXT = 64
local function deadline(queue)
  local earliest = math.huge
  for _, message in ipairs(redis.call('LRANGE', queue, -NEXT, -1)) do
    local at = string.match(string.sub(message, 1, 64), '^{"headers": {"deadline_at": ([0-9.]+)')
    earliest = math.min(earliest, (tonumber(at) or math.huge) - now)
  end
  return earliest
end

local waiting, tiers = {}, {}
for i = FIRST, #KEYS do
  local queue, at = KEYS[i], 10 + (i - FIRST) * 4
  local length = redis.pcall('LLEN', queue)
  if type(length) ~= 'number' then length = 0 end -- somebody stored something else there
  local tier = { jobs = length, waited = 0, hold = tonumber(ARGV[at + 3]), deadline = function() return deadline(queue) end }
  if length > 0 then
    tier.waited = now - since(KEYS[8], queue)
    local urgency = tonumber(ARGV[at]) + tonumber(ARGV[at + 1]) * (now - since(KEYS[4], queue))
    if urgency > 0 then urgency = urgency * tonumber(ARGV[at + 2]) end
    waiting[#waiting + 1] = { queue = queue, length = length, urgency = urgency, place = i }
    answer[4] = answer[4] + length
  end
  tiers[#tiers + 1] = tier
end
for _, taken in ipairs(redis.call('HVALS', KEYS[5])) do answer[4] = answer[4] + taken end
local window =
  { full = tonumber(ARGV[6]), busy = tonumber(ARGV[7]), run = tonumber(ARGV[8]), per_job = tonumber(ARGV[9]) }
local look = #waiting > 0 and look_again(window, tiers) or 0
if look > 0 then
  answer[5] = string.format('%.6f', look)
  return answer
end
table.sort(waiting, function(a, b)
  if a.urgency ~= b.urgency then return a.urgency > b.urgency end
  return a.place < b.place
end)

local any_losses = redis.call('EXISTS', KEYS[3]) == 1
local count = 0
local SLICE = 500 -- Lua hands over some thousand arguments at most
for _, from in ipairs(waiting) do
  local left = from.length
  while left > 0 and room > 0 and bytes > 0 do
    local head = redis.call('LRANGE', from.queue, -math.min(room, SLICE), -1)
    local entries, deadlines = {}, {}
    for i = #head, 1, -1 do
      if count > 0 and bytes < #head[i] then
        bytes = 0
        break
      end
      bytes = bytes - #head[i]
      count = count + 1
      local lease = string.format('%s|%s:%06d', from.queue, ARGV[4], count) -- sorts in the order of the queue
      entries[#entries + 1] = lease
      entries[#entries + 1] = head[i]
      deadlines[#deadlines + 1] = until_
      deadlines[#deadlines + 1] = lease
      answer[#answer + 1] = lease
      answer[#answer + 1] = any_losses and redis.call('HGET', KEYS[3], redis.sha1hex(head[i])) or 0
      answer[#answer + 1] = head[i]
    end
    local got = #entries / 2
    if got == 0 then break end
    redis.call('HSET', KEYS[1], unpack(entries))
    redis.call('ZADD', KEYS[2], unpack(deadlines))
    redis.call('LTRIM', from.queue, 0, -got - 1)
    room, left = room - got, left - got
  end
  local got = from.length - left
  if got > 0 then
    redis.call('HINCRBY', KEYS[5], from.queue, got)
    if left == 0 then
      redis.call('HDEL', KEYS[4], from.queue)
      redis.call('HDEL', KEYS[8], from.queue)
    else
      redis.call('HSET', KEYS[4], from.queue, string.format('%.6f', now))
    end
  end
end
return answer
