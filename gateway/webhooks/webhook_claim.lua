-- Take webhooks that are due, for a while: should the taker die, they are due again, for any gateway.
-- KEYS  1 webhooks (sorted set)
-- ARGV  1 how many at most, 2 for how long, in seconds
-- Returns job ids.
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1e6
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, id in ipairs(due) do
  redis.call('ZADD', KEYS[1], now + ARGV[2], id)
end
return due
