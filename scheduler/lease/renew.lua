#!lua flags=allow-oom
-- Prolong leases that are still held.
-- KEYS  1 leases (sorted set); ARGV  1 lease in seconds, 2.. leases
-- Returns those that are no longer held.
local clock = redis.call('TIME')
local until_ = string.format('%.6f', clock[1] + clock[2] / 1000000 + tonumber(ARGV[1]))
local lost = {}
for i = 2, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], 'XX', until_, ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
