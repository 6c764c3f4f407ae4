#!lua flags=allow-oom
-- Take back the losses that jobs have counted with a worker that died of an outside cause. Each counts a retry instead,
-- because the cause is only probable; a job without retries left keeps its losses.
-- KEYS  1 losses (hash), 2 history (hash), 3 suspects (list), 4 retries (hash)
-- ARGV  1 worker, 2 losses that make a suspect, 3 most retries
-- Returns how many jobs.
-- include ../../producer/contract/queue/lanes.lua
-- include resume.lua
local function is_of_worker(line)
  local owner = string.match(line, ' lost with (%S+)$')
  return owner and string.match(owner, '^(.+)%.[^.]+%.[^.]+$') == ARGV[1]
end

local excused, jobs = {}, 0
local found = redis.call('HGETALL', KEYS[2])
for i = 1, #found, 2 do
  local name, lines, taken_back = found[i], {}, 0
  for line in string.gmatch(found[i + 1], '[^\n]+') do
    if is_of_worker(line) then
      line, taken_back = line .. ', of an outside cause', taken_back + 1
    end
    lines[#lines + 1] = line .. '\n'
  end
  if taken_back > 0 and redis.call('HINCRBY', KEYS[4], name, 1) <= tonumber(ARGV[3]) then
    redis.call('HSET', KEYS[2], name, table.concat(lines))
    local losses = redis.call('HINCRBY', KEYS[1], name, -taken_back)
    if losses <= 0 then redis.call('HDEL', KEYS[1], name) end
    excused[name] = losses < tonumber(ARGV[2])
    jobs = jobs + 1
  end
end
if jobs > 0 then
  for _, suspect in ipairs(redis.call('LRANGE', KEYS[3], 0, -1)) do
    local place, message = string.match(suspect, '^([^|]+)|(.*)$')
    if excused[redis.sha1hex(message)] then
      redis.call('LREM', KEYS[3], 1, suspect)
      put(place, message, true)
      resume(string.match(place, '^[^/]+'))
    end
  end
end
return jobs
