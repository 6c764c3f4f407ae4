-- The clock of a preemptible tier's queue goes on until a job of it ends, also when a claim took the last that waited.
-- The hash of served queues has 'held:queue' from such a claim (claim.lua) until a job ends (finish.lua, bury.lua) or
-- comes back: since when the queue had been passed over. lanes.lua comes before this.
local function resume(queue)
  local served, held = model_key('served', queue), 'held:' .. queue
  local before = redis.call('HGET', served, held)
  if not before then return end
  redis.call('HDEL', served, held)
  local since = redis.call('HGET', served, queue)
  if not since or tonumber(before) < tonumber(since) then redis.call('HSET', served, queue, before) end
end
