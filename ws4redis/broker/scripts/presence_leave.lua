-- Let a process hold members of a channel no more, and tell of those whom no other holds.
--
-- KEYS  1 members, 2 holders, 3 presence
-- ARGV  1 process, 2 events channel, 3 PUBLISH or SPUBLISH, 4 cursor ('': the members are named),
--       then the names of members; with a cursor how many are looked at, of all members there are
-- Returns the next cursor, 0 when no more is to be done

local there = redis.call('EXISTS', KEYS[1], KEYS[2], KEYS[3])
if there ~= 3 then
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
  return '0'
end
if not redis.call('HGET', KEYS[3], ARGV[1]) then
  return '0'
end

local cursor, leaving = '0', {}
if ARGV[4] == '' then
  for i = 5, #ARGV do
    leaving[#leaving + 1] = ARGV[i]
  end
else
  local found = redis.call('HSCAN', KEYS[2], ARGV[4], 'COUNT', ARGV[5])
  cursor = found[1]
  for i = 1, #found[2], 2 do
    leaving[#leaving + 1] = found[2][i]
  end
end

local epoch = redis.call('HGET', KEYS[3], 'e')

local function leave(member)
  local holders = redis.call('HGET', KEYS[2], member)
  if not holders then
    return
  end
  local rest, held = {}, false
  for holder in string.gmatch(holders, '%S+') do
    if holder == ARGV[1] then
      held = true
    else
      rest[#rest + 1] = holder
    end
  end
  if not held then
    return
  end
  redis.call('HINCRBY', KEYS[3], ARGV[1], -1)
  if #rest > 0 then
    redis.call('HSET', KEYS[2], member, table.concat(rest, ' '))
    return
  end
  local value = redis.call('HGET', KEYS[1], member)
  redis.call('HDEL', KEYS[2], member)
  redis.call('HDEL', KEYS[1], member)
  if value then
    local number = redis.call('HINCRBY', KEYS[3], 'n', 1)
    redis.call(ARGV[3], ARGV[2], 'L ' .. epoch .. ' ' .. string.format('%.0f', number) .. ' ' .. value)
  end
end

for _, member in ipairs(leaving) do
  leave(member)
end

local left = tonumber(redis.call('HGET', KEYS[3], ARGV[1]))
if left <= 0 or (ARGV[4] ~= '' and cursor == '0') then
  redis.call('HDEL', KEYS[3], ARGV[1])
  cursor = '0'
end
if redis.call('HLEN', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
end
return cursor
