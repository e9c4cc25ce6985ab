-- Let a process hold members of a channel, and tell of those who were not there; without members,
-- verify what Redis has.
--
-- KEYS  1 members, 2 holders, 3 presence
-- ARGV  1 process, 2 epoch to begin if there is none, 3 seconds of the keys, 4 events channel,
--       5 PUBLISH or SPUBLISH, then for each member his name and his JSON
-- Returns {number of members that the process holds, fields of presence}

local there = redis.call('EXISTS', KEYS[1], KEYS[2], KEYS[3])
if there ~= 0 and there ~= 3 then
  -- One was evicted: what is left tells less than nothing.
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
end

local function holds(holders, process)
  return string.find(' ' .. holders .. ' ', ' ' .. process .. ' ', 1, true) ~= nil
end

for i = 6, #ARGV, 2 do
  local member, value = ARGV[i], ARGV[i + 1]
  local holders = redis.call('HGET', KEYS[2], member)
  if not holders then
    redis.call('HSET', KEYS[2], member, ARGV[1])
    redis.call('HINCRBY', KEYS[3], ARGV[1], 1)
  elseif not holds(holders, ARGV[1]) then
    redis.call('HSET', KEYS[2], member, holders .. ' ' .. ARGV[1])
    redis.call('HINCRBY', KEYS[3], ARGV[1], 1)
  end
  if redis.call('HSET', KEYS[1], member, value) == 1 then
    redis.call('HSETNX', KEYS[3], 'e', ARGV[2])
    local number = redis.call('HINCRBY', KEYS[3], 'n', 1)
    local epoch = redis.call('HGET', KEYS[3], 'e')
    redis.call(ARGV[5], ARGV[4], 'J ' .. epoch .. ' ' .. string.format('%.0f', number) .. ' ' .. value)
  end
end

for _, key in ipairs(KEYS) do
  redis.call('EXPIRE', key, ARGV[3])
end
return {tonumber(redis.call('HGET', KEYS[3], ARGV[1]) or 0), redis.call('HKEYS', KEYS[3])}
