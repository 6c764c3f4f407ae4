-- Where a job waits among the queues of its model, looked for at both ends of each.
-- KEYS  1.. queues (lists), one for each tier
-- ARGV  1 job id, 2 most messages to look at from either end of a queue
-- Returns {place of its queue among KEYS (0 when it was not found), jobs of that queue before it, length of each queue}.
local id, most = ARGV[1], tonumber(ARGV[2])
local answer = {0, 0}
local SLICE = 250 -- what is copied at a time, if it is found at once

local function look(queue, first, last)
  -- From the head, which is the right end: index -1 is the next to be taken.
  for from = first, last, SLICE do
    local upto = math.min(from + SLICE - 1, last)
    local messages = redis.call('LRANGE', queue, -upto - 1, -from - 1)
    for i = #messages, 1, -1 do
      if string.find(messages[i], id, 1, true) then return from + #messages - i end
    end
  end
end

for place, queue in ipairs(KEYS) do
  local length = redis.pcall('LLEN', queue)
  if type(length) ~= 'number' then length = 0 end -- somebody stored something else there
  answer[#answer + 1] = length
  if answer[1] == 0 and length > 0 then
    local ahead = look(queue, 0, math.min(most, length) - 1)
    if not ahead and length > most then ahead = look(queue, math.max(most, length - most), length - 1) end
    if ahead then answer[1], answer[2] = place, ahead end
  end
end
return answer
