-- What the texts of messages and results tell, without decoding them, which would take ten times as long.

-- The id of the job whose message, or entry (lanes.lua), it is; '' if it tells none. In messages of Stoker's client
-- it is the first "id" there (celery_message.py); in those of others, that may be the id of something else.
local function id_of(entry) return string.match(entry, '"id": ?"([^"\\]+)"') or '' end

-- Whether a stored result, or false, stays when a job of its id ends. A failure does not: a job that has failed runs no
-- more, so the one that ends is another, sent by stock Celery under the id of the first. Its status comes first
-- (results.py).
local function is_kept(stored)
  local status = stored and string.match(stored, '^{"status": ?"(%u+)"')
  return status == 'SUCCESS' or status == 'REVOKED'
end

-- Whether a stored result, or false, is the end of its job.
local function is_final(stored)
  return is_kept(stored) or stored and string.match(stored, '^{"status": ?"FAILURE"') ~= nil
end
