-- Put a dead letter back onto the queue that it came from, as it was, with its losses forgotten.
-- Its failed result is forgotten as well, so that the new run's result can be stored.
-- KEYS  1 dead (stream), 2 losses (hash); ARGV  1 entry id, 2 prefix of result keys
-- Returns 1, or 0 when there is no such dead letter.
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if #found == 0 then return 0 end
local letter = {}
for i = 1, #found[1][2], 2 do letter[found[1][2][i]] = found[1][2][i + 1] end
local decoded, content = pcall(cjson.decode, letter.message)
local id = decoded and type(content) == 'table' and type(content.headers) == 'table' and content.headers.id
if type(id) == 'string' then redis.call('DEL', ARGV[2] .. id) end
redis.call('HDEL', KEYS[2], redis.sha1hex(letter.message))
redis.call('LPUSH', letter.queue, letter.message)
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
