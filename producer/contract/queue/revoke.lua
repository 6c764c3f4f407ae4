#!lua flags=allow-oom
-- Remember jobs as cancelled that were revoked by a message to the workers, which only those hear that are up.
-- KEYS  1 cancelled (sorted set), 2 withdrawals (sorted set); ARGV  1 for how many seconds, 2.. job ids
-- Returns how many were not known to be cancelled.
local now = tonumber(redis.call('TIME')[1])
for _, key in ipairs(KEYS) do redis.call('ZREMRANGEBYSCORE', key, '-inf', now) end
local new = 0
for i = 2, #ARGV do
  if redis.call('ZADD', KEYS[1], 'NX', now + ARGV[1], ARGV[i]) == 1 then
    redis.call('ZADD', KEYS[2], now + ARGV[1], ARGV[i])
    new = new + 1
  end
end
return new
