-- Read where a channel with a history is, what is kept, and what came after a position.
--
-- KEYS  1 plain name (the kept message), 2 stream, 3 position
-- ARGV  1 epoch of the position ('': none is given), 2 offset, 3 tag ('': unknown), 4 how many entries,
--       5 a new epoch, 6 1 if the caller has seen that position itself, 7 seconds of the position,
--       8 events channel, 9 PUBLISH or SPUBLISH, 10 how many bytes of payloads,
--       11 seconds of a position where nothing was ever published
-- Returns {outcome, epoch, offset, tag, kept message or false, {{offset, payload, kind, tag, tag before} …},
--   kind of the newest}
-- The outcome is ok, trimmed, epoch or broken. With trimmed come those entries that are left.

local function drop_unless(key, wanted)
  local kind = redis.call('TYPE', key).ok
  if kind ~= wanted and kind ~= 'none' then
    redis.call('DEL', key)
  end
end

local function fields_of(entry)
  local fields = {}
  for i = 1, #entry[2], 2 do
    fields[entry[2][i]] = entry[2][i + 1]
  end
  return fields
end

-- Anybody may ask for channels of any name, so those where nothing was published are forgotten soon.
local function store(epoch, offset, tag)
  redis.call('HSET', KEYS[3], 'e', epoch, 'o', offset, 't', tag)
  redis.call('EXPIRE', KEYS[3], offset == '0' and ARGV[11] or ARGV[7])
end

local kept = false
if redis.call('TYPE', KEYS[1]).ok == 'string' then
  kept = redis.call('GET', KEYS[1])
end
drop_unless(KEYS[2], 'stream')
drop_unless(KEYS[3], 'hash')

local position = redis.call('HMGET', KEYS[3], 'e', 'o', 't', 'k')
local epoch, offset, tag, kind = position[1], position[2], position[3], position[4]
if not (epoch and offset and tag) then
  local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
  if last then
    local fields = fields_of(last)
    epoch, offset, tag = fields.e, string.match(last[1], '^%d+'), fields.t
    kind = fields.d and fields.k
  else
    epoch, offset, tag = ARGV[5], '0', '-'
  end
  store(epoch, offset, tag)
elseif offset == '0' then
  -- Refused by a replica, which is no reason not to answer.
  redis.pcall('EXPIRE', KEYS[3], ARGV[11])
end

local function answer(outcome, entries)
  return {outcome, epoch, offset, tag, kept, entries or {}, kind or 't'}
end

local function broken()
  if ARGV[6] ~= '1' then
    return answer('broken')
  end
  epoch = ARGV[5]
  -- A marker beside the last entry, should the position be evicted before the next publication.
  local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
  if last then
    local id, sequence = string.match(last[1], '^(%d+)-(%d+)$')
    redis.call('XADD', KEYS[2], id .. '-' .. string.format('%.0f', tonumber(sequence) + 1),
      'k', 'epoch', 'e', epoch, 't', tag)
  end
  store(epoch, offset, tag)
  redis.call(ARGV[9], ARGV[8], table.concat({'E', epoch, offset, tag}, ' '))
  return answer('broken')
end

if ARGV[1] == '' then
  return answer('ok')
end
if ARGV[1] ~= epoch then
  return answer('epoch')
end
local since, newest = tonumber(ARGV[2]), tonumber(offset)
if since > newest or (since == newest and ARGV[3] ~= '' and ARGV[3] ~= tag) then
  return broken()
end
if since == newest then
  return answer('ok')
end

local outcome, entries, bytes = 'ok', {}, 0
local expected = since + 1
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], string.format('%.0f', expected), '+', 'COUNT', ARGV[4])) do
  local fields = fields_of(entry)
  if fields.d then
    local number = string.match(entry[1], '^%d+')
    if tonumber(number) ~= expected then
      outcome, entries, expected = 'trimmed', {}, tonumber(number)
    elseif expected == since + 1 and ARGV[3] ~= '' and fields.p ~= ARGV[3] then
      return broken()
    end
    bytes = bytes + #fields.d
    if bytes > tonumber(ARGV[10]) and #entries > 0 then
      break
    end
    entries[#entries + 1] = {number, fields.d, fields.k, fields.t, fields.p}
    expected = expected + 1
  end
end
if #entries == 0 then
  return answer('trimmed')
end
return answer(outcome, entries)
