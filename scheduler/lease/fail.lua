-- Answer who waits for a job that will never run: store and announce a failed result, if its id can be read.
-- text.lua comes before this. prefix: of result keys; ttl: of results, in ms.
local function fail_id(id, reason, prefix, ttl)
  local result = '{"status": "FAILURE", "result": {"exc_type": "JobFailed", "exc_message": ['
    .. cjson.encode('dead letter: ' .. reason .. "; see 'stoker dead list'")
    .. '], "exc_module": "producer.errors"}, "traceback": null, "children": [], "date_done": null, "task_id": '
    .. cjson.encode(id) .. '}'
  if not is_kept(redis.call('GET', prefix .. id)) then
    redis.call('SET', prefix .. id, result, 'PX', ttl)
    redis.call('PUBLISH', prefix .. id, result)
  end
end

local function fail(message, reason, prefix, ttl)
  local decoded, content = pcall(cjson.decode, message)
  local id = decoded and type(content) == 'table' and type(content.headers) == 'table' and content.headers.id
  if type(id) == 'string' then fail_id(id, reason, prefix, ttl) end
end
