-- Takes the same number of tokens from every bucket of one caller, or as many as all of them have.
-- KEYS: the buckets. ARGV: tokens wanted, then for each bucket: tokens a second, burst, and the debt
-- in microseconds that the asking node knows of.
-- Answers: tokens granted, then each bucket's debt in microseconds.
--
-- A bucket is one number: the time at which it is full again (GCRA's theoretical arrival time). Its
-- debt is how far away that is. Time is this server's: nodes' clocks differ, and a node that is
-- ahead would find every bucket full.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local granted = tonumber(ARGV[1])
local full_at = {}
for i = 1, #KEYS do
  local rate, burst, known = tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1])
  local deepest = now + math.ceil(burst * 1000000 / rate)
  -- What a node knows survives the loss of what is stored here. Never below empty: a clock that was
  -- set back, or a burst that was made smaller, must not lock anybody out.
  local stored = tonumber(redis.call('GET', KEYS[i]) or 0)
  full_at[i] = math.min(math.max(stored, now + known), deepest)
  granted = math.min(granted, math.floor((deepest - full_at[i]) * rate / 1000000))
end
local answer = { granted }
for i = 1, #KEYS do
  -- Rounded up, so that no rounding ever admits more.
  full_at[i] = full_at[i] + math.ceil(granted * 1000000 / tonumber(ARGV[3 * i - 1]))
  if full_at[i] > now then
    redis.call('SET', KEYS[i], string.format('%.0f', full_at[i]), 'PX', math.ceil((full_at[i] - now) / 1000))
  end
  answer[i + 1] = full_at[i] - now
end
return answer
