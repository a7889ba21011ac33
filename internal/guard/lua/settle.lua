#!lua flags=allow-oom
-- Note up to where in the primary's log the cache reflects it, where the log comes
-- through topics: once every partition has settled that far. What is compared and
-- what is written are of one master and of one moment, so no failover between the
-- two can leave the note without what it speaks of.
-- KEYS: 1 the note; then the watermarks of all partitions. ARGV: 1 settled (20
-- bytes, see change.Position), 2 origin, 3 format; then, of each watermark, where
-- its settled is to be.
-- Returns {'OK'}: the note says so, or is further already; {'WAIT', i}: watermark i
-- (from 1) is not there yet, is of another origin, or has a sweep that has not
-- ended; {'OWNED'}: under that name there is the watermark of a slot; {'FORMAT', f}:
-- written by a newer release. But for OK nothing has changed.
local found = redis.call('HMGET', KEYS[1], 'owner', 'format', 'settled')
if found[1] then return {'OWNED'} end
if found[2] and tonumber(found[2]) > tonumber(ARGV[3]) then return {'FORMAT', found[2]} end
-- Lua compares texts by the locale, and its numbers end at 2^53.
local function below(position, wanted)
  if not position or #position ~= 20 then return true end
  for i = 1, 17, 4 do
    local a, b = struct.unpack('>I4', position, i), struct.unpack('>I4', wanted, i)
    if a ~= b then return a < b end
  end
  return false
end
for i = 2, #KEYS do
  local w = redis.call('HMGET', KEYS[i], 'settled', 'origin', 'sweeps')
  local origin = w[2] or ''
  -- Behind the origin may stand up to where nothing is waited for (see Note).
  local same = origin == ARGV[2] or string.sub(origin, 1, #ARGV[2] + 1) == ARGV[2] .. ' '
  local swept = not w[3] or w[3] == '' or w[3] == 'null' or w[3] == '[]'
  if not same or not swept or below(w[1], ARGV[i + 2]) then return {'WAIT', i - 1} end
end
if below(found[3], ARGV[1]) then redis.call('HSET', KEYS[1], 'format', ARGV[3], 'settled', ARGV[1]) end
return {'OK'}
