-- Want a batch cancelled. Who runs it sees to it; what is finished by then stays.
-- KEYS  1 batch (hash); ARGV  1 Unix time in seconds
-- Returns its status: it was marked when that is 'validating' or 'in_progress', and is left alone otherwise.
local status = redis.call('HGET', KEYS[1], 'status')
if status == 'validating' or status == 'in_progress' then
  redis.call('HSETNX', KEYS[1], 'cancelling_at', ARGV[1])
end
return status
