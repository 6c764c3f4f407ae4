#!lua flags=allow-oom
-- Give jobs back unharmed, to the head of the queue, or the lane, that each came from. This counts as no loss.
-- KEYS  1 inflight (hash), 2 leases (sorted set), 3 taken (hash), 4 losses (hash), 5 suspects (list)
-- ARGV  1 losses that make a suspect, 2.. leases, oldest first
-- Returns how many were still held and so given back.
-- include ../../producer/contract/queue/lanes.lua
-- include settle.lua
-- include resume.lua
local released = 0
for i = #ARGV, 2, -1 do
  local message = redis.call('HGET', KEYS[1], ARGV[i])
  if message then
    local place = string.match(ARGV[i], '^[^|]+')
    local losses = redis.call('HGET', KEYS[4], redis.sha1hex(message)) or 0
    if tonumber(losses) >= tonumber(ARGV[1]) then
      redis.call('RPUSH', KEYS[5], place .. '|' .. message)
    else
      put(place, message, true)
      resume(string.match(place, '^[^/]+'))
    end
    redis.call('HDEL', KEYS[1], ARGV[i])
    redis.call('ZREM', KEYS[2], ARGV[i])
    redis.call('HINCRBY', KEYS[3], string.match(place, '^[^/]+'), -1)
    settle(ARGV[i], 0)
    released = released + 1
  end
end
settle_all()
return released
