-- Return who is in a channel, or how many.
--
-- KEYS  1 members, 2 holders, 3 presence
-- ARGV  1 1 for the members, 0 for their number, 2 1 if only members of living processes count,
--       then the names of the living
-- Returns {epoch, number of the latest change, number of members, JSON of each if they are wanted}

local living = {}
for i = 3, #ARGV do
  living[ARGV[i]] = true
end

local function all_live()
  if ARGV[2] ~= '1' then
    return true
  end
  for _, process in ipairs(redis.call('HKEYS', KEYS[3])) do
    if process ~= 'e' and process ~= 'n' and not living[process] then
      return false
    end
  end
  return true
end

local function is_held(holders)
  for holder in string.gmatch(holders, '%S+') do
    if living[holder] then
      return true
    end
  end
  return false
end

local count, members = 0, {}
if all_live() then
  count = redis.call('HLEN', KEYS[1])
  if ARGV[1] == '1' then
    members = redis.call('HVALS', KEYS[1])
  end
else
  local holders = redis.call('HGETALL', KEYS[2])
  for i = 1, #holders, 2 do
    if is_held(holders[i + 1]) then
      count = count + 1
      if ARGV[1] == '1' then
        members[#members + 1] = redis.call('HGET', KEYS[1], holders[i]) or '{}'
      end
    end
  end
end
local version = redis.call('HMGET', KEYS[3], 'e', 'n')
return {version[1] or '', tonumber(version[2] or 0), count, members}
