-- Dead letters, which are bounded: by their age, and by bytes, of which a tenant's may be half of what those of others
-- leave; its own oldest go first. lanes.lua comes before this. Sizes stand in a sorted set, all of score 0:
-- 'tenant|id|bytes', which sorts by tenant and age, and their sums by tenant in a hash, in which '' is of all.
local BESIDE = 256 -- bytes of a letter beside its message
local CUT = 1024 -- bytes that are kept of a message that is larger than all that its tenant may keep

local function forget_letter(stream, queue, id, member, tenant, bytes)
  redis.call('XDEL', stream, id)
  if redis.call('ZREM', model_key('lettersizes', queue), member) == 0 then return end
  for _, of in ipairs({ tenant, '' }) do
    if redis.call('HINCRBY', model_key('letterbytes', queue), of, -bytes) <= 0 then
      redis.call('HDEL', model_key('letterbytes', queue), of)
    end
  end
end

-- Forget a letter that was found, [id, fields] as XRANGE answers; returns its fields by name.
local function forget_found(stream, found)
  local fields = {}
  for i = 1, #found[2], 2 do fields[found[2][i]] = found[2][i + 1] end
  local tenant = string.match(fields.place or '', '/(.+)$') or DEFAULT
  local bytes = #(fields.message or '') + BESIDE
  forget_letter(stream, fields.queue, found[1], tenant .. '|' .. found[1] .. '|' .. bytes, tenant, bytes)
  return fields
end

-- Forget letters that are older than so many seconds, some at a time.
local function forget_old_letters(stream, age_s)
  local clock = redis.call('TIME')
  local before = string.format('(%d-0', math.max(0, (clock[1] - age_s) * 1000))
  for _, letter in ipairs(redis.call('XRANGE', stream, '-', before, 'COUNT', 16)) do forget_found(stream, letter) end
end

-- Keep a letter. most: bytes of all letters of the model; age_s: for how long.
local function keep_letter(stream, place, reason, losses, history, message, most, age_s)
  local queue = string.match(place, '^[^/]+')
  local tenant = string.match(place, '/(.+)$') or DEFAULT
  local sizes, sums = model_key('lettersizes', queue), model_key('letterbytes', queue)
  local own = tonumber(redis.call('HGET', sums, tenant) or 0)
  local allowed = (most - (tonumber(redis.call('HGET', sums, '') or 0) - own)) / 2
  local bytes = #message + BESIDE
  if bytes > allowed then
    reason = reason .. ' (of its ' .. #message .. ' bytes only the first are kept)'
    message = string.sub(message, 1, CUT)
    bytes = #message + BESIDE
  end
  while own > 0 and own + bytes > allowed do
    local oldest = redis.call('ZRANGEBYLEX', sizes, '[' .. tenant .. '|', '(' .. tenant .. '}', 'LIMIT', 0, 1)[1]
    if not oldest then break end
    local id, size = string.match(oldest, '|([^|]+)|([^|]+)$')
    forget_letter(stream, queue, id, oldest, tenant, size)
    own = own - size
  end
  local id = redis.call('XADD', stream, '*', 'queue', queue, 'place', place, 'reason', reason, 'losses', losses,
    'history', history, 'message', message)
  redis.call('ZADD', sizes, 0, tenant .. '|' .. id .. '|' .. bytes)
  for _, of in ipairs({ tenant, '' }) do redis.call('HINCRBY', sums, of, bytes) end
  forget_old_letters(stream, age_s)
end
