#!lua flags=allow-oom
-- Say that the set of an index is complete, once the stream has brought all that the
-- database had seen. The watermark and the set are of one master and of one moment.
-- KEYS: 1 watermark, 2 the set. ARGV: 1 owner, 2 the member of this building that came
-- last, 3 position (20 bytes, see change.Position).
-- Returns 'OK'; 'WAIT': the watermark is not there yet; 'LOST': the stream is another
-- owner's, or it is not the set that was begun, with all that was added.
local w = redis.call('HMGET', KEYS[1], 'owner', 'lo')
if w[1] ~= ARGV[1] or redis.call('SISMEMBER', KEYS[2], ARGV[2]) == 0 then return 'LOST' end
if not w[2] or #w[2] ~= 20 then return 'WAIT' end
-- Lua compares texts by the locale, and its numbers end at 2^53.
for i = 1, 17, 4 do
  local a, b = struct.unpack('>I4', w[2], i), struct.unpack('>I4', ARGV[3], i)
  if a < b then return 'WAIT' end
  if a > b then break end
end
redis.call('SADD', KEYS[2], 'complete')
return 'OK'
