-- Renew the lease of a process, bury those whose lease has ended, and return who lives.
--
-- KEYS  1 processes
-- ARGV  1 name of the process ('': only look), 2 milliseconds of the lease, 3 1 if its life begins,
--       4 1 if it may bury others, 5 seconds of the key
-- Returns {1, or 0 if the process was buried itself, names of the living}

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function text(milliseconds)
  return string.format('%.0f', milliseconds)
end

if ARGV[1] == '' then
  return {1, redis.call('ZRANGEBYSCORE', KEYS[1], text(now), '+inf')}
end
if ARGV[3] ~= '1' and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  return {0, {}}
end
redis.call('ZADD', KEYS[1], text(now + tonumber(ARGV[2])), ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[5])
if ARGV[4] == '1' then
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. text(now))
end
return {1, redis.call('ZRANGE', KEYS[1], 0, -1)}
