-- Cancel a job that has not ended: no worker starts it, and its result is fixed at once, by the caller if it may write
-- results, else by the autoscaler, which hears of it.
-- KEYS  1 result (string and channel), 2 cancelled (sorted set), 3 withdrawals (sorted set), 4 cancellations (list)
-- ARGV  1 job id, 2 the result of a cancelled job, or '' of who may write none, 3 result's time to live in ms
-- Returns 1 when cancelled, 0 when it had ended before.
-- include text.lua
if is_final(redis.call('GET', KEYS[1])) then return 0 end
local now, writes = tonumber(redis.call('TIME')[1]), ARGV[2] ~= ''
for _, key in ipairs({ KEYS[2], KEYS[3] }) do
  if writes then redis.call('ZREMRANGEBYSCORE', key, '-inf', now) end
  redis.call('ZADD', key, now + ARGV[3] / 1000, ARGV[1])
end
if writes then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  redis.call('PUBLISH', KEYS[1], ARGV[2])
else
  redis.call('LPUSH', KEYS[4], ARGV[1])
end
return 1
