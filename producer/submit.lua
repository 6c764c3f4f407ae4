-- Push messages onto one queue, all or none.
-- KEYS  1 queue (list), 2 waiting (hash), 3.. one submission marker (string) for each message that has an idempotency key
-- ARGV  1 most jobs the queue may hold, 2 marker time to live in ms, 3.. messages, each preceded by the
--       index of its marker in KEYS, or 0
-- Returns {-1, length} when the queue is full, else {pushed, length}. A message whose marker exists was
-- submitted before and is not pushed again.
local length = redis.call('LLEN', KEYS[1])
if length + (#ARGV - 2) / 2 > tonumber(ARGV[1]) then
  return {-1, length}
end
local pushed = 0
for i = 3, #ARGV, 2 do
  local marker = tonumber(ARGV[i])
  if marker == 0 or redis.call('SET', KEYS[marker], 1, 'NX', 'PX', ARGV[2]) then
    redis.call('LPUSH', KEYS[1], ARGV[i + 1])
    pushed = pushed + 1
  end
end
if length == 0 and pushed > 0 then
  local clock = redis.call('TIME')
  redis.call('HSET', KEYS[2], KEYS[1], string.format('%d.%06d', clock[1], clock[2]))
end
return {pushed, length + pushed}
