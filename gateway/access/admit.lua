-- Look up an API key, and count a request against its rate. A token bucket that holds a minute's worth, in the form of
-- GCRA (https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm): one number says when it is full again.
-- KEYS  1 API keys (hash), 2 when this one's allowance is full again (string)
-- ARGV  1 SHA-256 of the key in hex; empty when the request has none
-- Returns {key as JSON or false, how many keys were ever made, ms to wait or 0, how many requests it may make at once,
-- ms until that is a minute's worth}. One that is revoked, or has no rate, counts nothing.
local found = ARGV[1] ~= '' and redis.call('HGET', KEYS[1], ARGV[1])
local made = redis.call('HLEN', KEYS[1])
if not found then
  return {false, made, 0, 0, 0}
end
local key = cjson.decode(found)
local rate = key['requests_per_minute']
if type(rate) ~= 'number' or type(key['revoked_at']) == 'number' then
  return {found, made, 0, 0, 0}
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + clock[2] / 1000
local each = 60000 / rate
local before = tonumber(redis.call('GET', KEYS[2]) or 0)
if before > now + 60000 then before = now end -- the clock was set back
local full = math.max(now, before) + each
if full - now > 60000.5 then
  return {found, made, math.ceil(full - now - 60000), 0, math.ceil(full - each - now)}
end
redis.call('SET', KEYS[2], string.format('%.3f', full), 'PX', 60000)
return {found, made, 0, math.floor((60000.5 - (full - now)) / each), math.ceil(full - now)}
