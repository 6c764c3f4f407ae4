-- Cancel a job that has not ended: its result is fixed at once, and no worker will start it.
-- KEYS  1 result (string and channel), 2 cancelled (sorted set), 3 withdrawals (sorted set)
-- ARGV  1 job id, 2 the result of a cancelled job, 3 result's time to live in ms
-- Returns 1 when cancelled, 0 when it had ended before.
-- include contract/queue/text.lua
if is_final(redis.call('GET', KEYS[1])) then return 0 end
local now = tonumber(redis.call('TIME')[1])
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
for _, key in ipairs({ KEYS[2], KEYS[3] }) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  redis.call('ZADD', key, now + ARGV[3] / 1000, ARGV[1])
end
redis.call('PUBLISH', KEYS[1], ARGV[2])
return 1
