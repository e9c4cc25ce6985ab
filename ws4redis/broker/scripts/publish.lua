-- Publish on a channel that has a history: append, keep, publish. All of it or nothing.
--
-- KEYS  1 plain name (the kept message), 2 stream, 3 position, 4 once (only with an idempotency key)
-- ARGV  1 payload, 2 kind, 3 tag of this publication, 4 epoch to begin if there is none,
--       5 size of the history, 6 its seconds, 7 seconds of the position, 8 seconds to keep (0: not),
--       9 events channel, 10 PUBLISH or SPUBLISH, 11 seconds of the idempotency key,
--       12 1 if this very call may have been run before, whose answer was lost with a connection
-- Returns {epoch, offset, tag, 1 if published, 0 if it had been published before}

local function drop_unless(key, wanted)
  local kind = redis.call('TYPE', key).ok
  if kind ~= wanted and kind ~= 'none' then
    redis.call('DEL', key)
  end
end

-- The number of the newest publication: from the position, else from the last entry of the stream.
local function newest()
  local position = redis.pcall('HMGET', KEYS[3], 'e', 'o', 't')
  if position[1] and position[2] and position[3] then
    return position[1], tonumber(position[2]), position[3]
  end
  drop_unless(KEYS[3], 'hash')
  drop_unless(KEYS[2], 'stream')
  local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
  if not last then
    return ARGV[4], 0, '-'
  end
  local fields = {}
  for i = 1, #last[2], 2 do
    fields[last[2][i]] = last[2][i + 1]
  end
  return fields.e, tonumber(string.match(last[1], '^%d+')), fields.t
end

if KEYS[4] then
  drop_unless(KEYS[4], 'hash')
  local before = redis.call('HMGET', KEYS[4], 'e', 'o', 't')
  if before[1] then
    return {before[1], before[2], before[3], 0}
  end
end

if ARGV[12] == '1' then
  drop_unless(KEYS[2], 'stream')
  -- The tag is this publication's alone.
  for _, entry in ipairs(redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1000)) do
    local fields = {}
    for i = 1, #entry[2], 2 do
      fields[entry[2][i]] = entry[2][i + 1]
    end
    if fields.t == ARGV[3] and fields.d then
      return {fields.e, string.match(entry[1], '^%d+'), fields.t, 0}
    end
  end
end

local epoch, offset, tag_before = newest()
offset = string.format('%.0f', offset + 1)

local function append()
  return redis.pcall('XADD', KEYS[2], 'MAXLEN', ARGV[5], offset .. '-0',
    'd', ARGV[1], 'k', ARGV[2], 't', ARGV[3], 'p', tag_before, 'e', epoch)
end

local added = append()
if type(added) == 'table' and added.err and string.find(added.err, 'WRONGTYPE') then
  redis.call('DEL', KEYS[2])
  added = append()
end
if type(added) == 'table' and added.err and string.find(added.err, 'smaller') then
  -- The stream is ahead of the position, which somebody must have put back: begin anew.
  redis.call('DEL', KEYS[2])
  epoch, offset, tag_before = ARGV[4], '1', '-'
  added = append()
end
if type(added) == 'table' and added.err then
  return added
end

redis.call('EXPIRE', KEYS[2], ARGV[6])
redis.call('HSET', KEYS[3], 'e', epoch, 'o', offset, 't', ARGV[3], 'k', ARGV[2])
redis.call('EXPIRE', KEYS[3], ARGV[7])
if KEYS[4] then
  redis.call('HSET', KEYS[4], 'e', epoch, 'o', offset, 't', ARGV[3])
  redis.call('EXPIRE', KEYS[4], ARGV[11])
end
if ARGV[8] ~= '0' then
  redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[8])
end
-- The payload is the very next message of this channel that a subscriber of both gets.
redis.call(ARGV[10], ARGV[9], table.concat({'P', epoch, offset, ARGV[3], tag_before, ARGV[2]}, ' '))
redis.call(ARGV[10], KEYS[1], ARGV[1])
return {epoch, offset, ARGV[3], 1}
