-- The batch window on the queues themselves: look_again of window.py, line by line.
-- window: {full, busy, run, per_job}; tiers: for each {jobs, waited, hold, deadline}, all in seconds; deadline is a
-- function, called only when needed. Returns the seconds until the queues are to be checked again; 0 when a batch is due.
-- constant LOOK_S from window.py
local function look_again(window, tiers)
  local jobs = 0
  for _, tier in ipairs(tiers) do jobs = jobs + tier.jobs end
  if jobs == 0 then return math.huge end
  if jobs >= window.full then return 0 end
  local left = math.huge
  for _, tier in ipairs(tiers) do
    if tier.jobs > 0 then left = math.min(left, tier.hold - tier.waited) end
  end
  if left <= 0 and window.busy <= 0 then return 0 end
  for _, tier in ipairs(tiers) do
    if tier.jobs > 0 then left = math.min(left, tier.deadline() - window.run) end
  end
  left = math.max(left, window.busy)
  if left <= 0 then return 0 end
  local unseen, waited = left, 0
  for _, tier in ipairs(tiers) do
    if tier.jobs == 0 then unseen = math.min(unseen, tier.hold / 2) else waited = math.max(waited, tier.waited) end
  end
  local filled = (window.full - jobs) * window.per_job
  return math.min(left, math.max(LOOK_S, math.min(waited, math.max(unseen, window.busy), filled)))
end
