#!lua flags=allow-oom
-- Put a job aside to be tried again later, unless it was tried often enough.
-- KEYS  1 inflight (hash), 2 leases (sorted set), 3 retries (hash), 4 deferred (sorted set)
-- ARGV  1 lease, 2 most retries, then for each retry: its delay in seconds
-- Returns how often it was deferred by now, 0 when that was often enough, -1 when the lease was no longer held.
-- include ../../producer/contract/queue/lanes.lua
-- include settle.lua
local message = redis.call('HGET', KEYS[1], ARGV[1])
if not message then return -1 end
local name = redis.sha1hex(message)
local retry = redis.call('HINCRBY', KEYS[3], name, 1)
if retry > tonumber(ARGV[2]) then return 0 end
local clock = redis.call('TIME')
local due = clock[1] + clock[2] / 1000000 + tonumber(ARGV[2 + retry])
local place = string.match(ARGV[1], '^[^|]+')
redis.call('ZADD', KEYS[4], string.format('%.6f', due), place .. '|' .. message)
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
settle(ARGV[1], 0)
settle_all()
return retry
