-- Append the output of streaming jobs to their streams, for jobs whose leases are still held.
-- KEYS  1 inflight (hash), 2.. streams
-- ARGV  1 streams' time to live in ms, 2 most entries that a stream keeps, then for each stream: lease, number of
--       entries, and for each entry: index, at, text, tokens, what it is of ('' for the text, 'reasoning', or the number
--       of a tool call), and log probabilities as JSON or '' (producer/stream.py); an index of -1 ends the run
-- Returns the leases that are no longer held: another worker owns those jobs and their streams.
local lost = {}
local at = 3
for i = 2, #KEYS do
  local lease, count = ARGV[at], tonumber(ARGV[at + 1])
  at = at + 2
  if redis.call('HEXISTS', KEYS[1], lease) == 0 then
    lost[#lost + 1] = lease
  else
    for entry = at, at + 6 * (count - 1), 6 do
      if ARGV[entry] == '-1' then
        redis.call('XADD', KEYS[i], 'MAXLEN', '~', ARGV[2], '*', 'end', 1)
      else
        local fields = {'index', ARGV[entry], 'at', ARGV[entry + 1], 'text', ARGV[entry + 2], 'tokens', ARGV[entry + 3]}
        if ARGV[entry + 4] == 'reasoning' then
          fields[9], fields[10] = 'reasoning', 1
        elseif ARGV[entry + 4] ~= '' then
          fields[9], fields[10] = 'call', ARGV[entry + 4]
        end
        if ARGV[entry + 5] ~= '' then
          fields[#fields + 1] = 'logprobs'
          fields[#fields + 1] = ARGV[entry + 5]
        end
        redis.call('XADD', KEYS[i], 'MAXLEN', '~', ARGV[2], '*', unpack(fields))
      end
    end
    redis.call('PEXPIRE', KEYS[i], ARGV[1])
  end
  at = at + 6 * count
end
return lost
