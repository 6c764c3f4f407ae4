-- Write down what has come of a batch and keep its lease, or nothing when the lease is no longer held.
-- KEYS  1 lease (string), 2 batch (hash), 3 parts (hash), 4 open batches (sorted set), 5 those of its tenant (sorted
--       set), 6 tenants that have any (sorted set)
-- ARGV  1 who holds the lease, 2 its length in ms; 0 gives it up, 3 batch id, 4 part of the output that is written, or '',
--       5 its completed lines, 6 its failed lines, 7 whether the batch is over (1 or 0), 8 its tenant, 9.. fields and
--       their values
-- Returns {1 when the lease was held, when somebody wanted it cancelled or ''}.
-- Repeated when its answer was lost, it changes nothing: a part is listed and its lines are counted once.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {0, ''} end
if ARGV[4] ~= '' and redis.call('HSETNX', KEYS[3], ARGV[4], ARGV[5] .. ' ' .. ARGV[6]) == 1 then
  redis.call('HINCRBY', KEYS[2], 'completed', ARGV[5])
  redis.call('HINCRBY', KEYS[2], 'failed', ARGV[6])
end
if #ARGV > 8 then redis.call('HSET', KEYS[2], unpack(ARGV, 9)) end
if ARGV[7] == '1' then
  redis.call('ZREM', KEYS[4], ARGV[3])
  redis.call('ZREM', KEYS[5], ARGV[3])
  if redis.call('EXISTS', KEYS[5]) == 0 then redis.call('ZREM', KEYS[6], ARGV[8]) end
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return {1, redis.call('HGET', KEYS[2], 'cancelling_at') or ''}
