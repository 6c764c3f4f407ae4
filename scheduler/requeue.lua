-- Put a dead letter back onto the queue, or the lane, that it came from, as it was, with its losses forgotten, or only
-- forget the letter. Its failed result is forgotten as well, so that the new run's result can be stored.
-- KEYS  1 dead (stream), 2 losses (hash); ARGV  1 entry id, 2 prefix of result keys, or '' to only forget the letter
-- Returns 1, or 0 when there is no such dead letter.
-- include ../producer/contract/queue/lanes.lua
-- include lease/letters.lua
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])
if #found == 0 then return 0 end
local letter = forget_found(KEYS[1], found[1])
if ARGV[2] == '' then return 1 end
local decoded, content = pcall(cjson.decode, letter.message)
local id = decoded and type(content) == 'table' and type(content.headers) == 'table' and content.headers.id
if type(id) == 'string' then redis.call('DEL', ARGV[2] .. id) end
redis.call('HDEL', KEYS[2], redis.sha1hex(letter.message))
local tenant = string.match(letter.place or '', '/(.+)$')
if not tenant or tenant == DEFAULT then
  put(letter.queue, letter.message, false)
else
  local clock = redis.call('TIME')
  local entry = string.format('%d.%06d|', clock[1], clock[2]) .. letter.message -- due at once: it has waited long enough
  put(letter.queue .. '/' .. tenant, entry, false)
end
return 1
