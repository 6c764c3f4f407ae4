#!lua flags=allow-oom
-- Take back the jobs of workers that fell silent: to the head of their queue, or, after too many losses,
-- to the dead letters with a failed result, so that nobody waits for them for ever.
-- KEYS  1 inflight (hash), 2 leases (sorted set), 3 losses (hash), 4 taken (hash), 5 dead (stream)
-- ARGV  1 most losses a job may cause, 2 most jobs to look at, 3 prefix of result keys, 4 results' time to live in ms
-- Returns {requeued, buried}.
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local requeued, buried = 0, 0
for _, lease in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[2])) do
  local message = redis.call('HGET', KEYS[1], lease)
  if message then
    local queue = string.match(lease, '^([^|]+)|')
    local name = redis.sha1hex(message)
    local losses = redis.call('HINCRBY', KEYS[3], name, 1)
    if losses < tonumber(ARGV[1]) then
      redis.call('RPUSH', queue, message)
      redis.call('HINCRBY', KEYS[4], queue, -1)
      requeued = requeued + 1
    else
      local reason = 'lost ' .. losses .. ' workers while it ran'
      redis.call('XADD', KEYS[5], '*', 'queue', queue, 'reason', reason, 'losses', losses, 'message', message)
      redis.call('HDEL', KEYS[3], name)
      local decoded, content = pcall(cjson.decode, message)
      local id = decoded and type(content) == 'table' and type(content.headers) == 'table' and content.headers.id
      if type(id) == 'string' then
        local why = cjson.encode('dead letter: it ' .. reason .. "; see 'stoker dead list'")
        local result = '{"status": "FAILURE", "result": {"exc_type": "JobFailed", "exc_message": [' .. why
          .. '], "exc_module": "producer.errors"}, "traceback": null, "children": [], "date_done": null, "task_id": '
          .. cjson.encode(id) .. '}'
        if redis.call('SET', ARGV[3] .. id, result, 'NX', 'PX', ARGV[4]) then
          redis.call('PUBLISH', ARGV[3] .. id, result)
        end
      end
      buried = buried + 1
    end
    redis.call('HDEL', KEYS[1], lease)
  end
  redis.call('ZREM', KEYS[2], lease)
end
return {requeued, buried}
