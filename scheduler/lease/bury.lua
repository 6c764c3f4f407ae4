#!lua flags=allow-oom
-- Move a job that cannot be served to the dead letters, with its reason, and answer who waits for it.
-- KEYS  1 inflight (hash), 2 leases (sorted set), 3 losses (hash), 4 dead (stream), 5 retries (hash), 6 history (hash)
-- ARGV  1 lease, 2 reason, 3 prefix of result keys, 4 results' time to live in ms, 5 most bytes of dead letters,
--       6 for how many seconds they are kept, 7.. ids of other tasks that will not run either, because this job was to
--       send them
-- Returns 1, or 0 when the lease was no longer held.
-- include ../../producer/contract/queue/text.lua
-- include fail.lua
-- include ../../producer/contract/queue/lanes.lua
-- include settle.lua
-- include letters.lua
local entry = redis.call('HGET', KEYS[1], ARGV[1])
if not entry then return 0 end
local place = string.match(ARGV[1], '^[^|]+')
local queue = string.match(place, '^[^/]+')
local name = redis.sha1hex(entry)
local losses = redis.call('HGET', KEYS[3], name) or 0
local history = redis.call('HGET', KEYS[6], name) or ''
keep_letter(KEYS[4], place, ARGV[2], losses, history, message_of(place, entry), tonumber(ARGV[5]), tonumber(ARGV[6]))
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
for _, key in ipairs({KEYS[3], KEYS[5], KEYS[6]}) do redis.call('HDEL', key, name) end
fail(message_of(place, entry), ARGV[2], ARGV[3], ARGV[4])
for i = 7, #ARGV do fail_id(ARGV[i], ARGV[2], ARGV[3], ARGV[4]) end
redis.call('HDEL', model_key('served', queue), 'held:' .. queue) -- resume.lua
settle(ARGV[1], nil)
settle_all()
return 1
