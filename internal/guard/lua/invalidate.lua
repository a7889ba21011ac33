#!lua flags=allow-oom
-- A writer that has committed drops a key itself, so that it reads its own write
-- at once. The change drops it again when it comes.
-- KEYS: 1 data key, 2 side key. ARGV: 1 H: a position of the log behind the
-- commit, eight bytes big-endian; empty: the entry never SETs. 2 shield in ms.
redis.call('UNLINK', KEYS[1])
local side = redis.call('GET', KEYS[2])
local h = side and string.sub(side, 2, 9) or '\0\0\0\0\0\0\0\0'
if ARGV[1] ~= '' then
  local ah, al = struct.unpack('>I4I4', ARGV[1])
  local bh, bl = struct.unpack('>I4I4', h)
  if ah > bh or (ah == bh and al > bl) then h = ARGV[1] end
  redis.call('SET', KEYS[2], '\1' .. h, 'PX', ARGV[2])
elseif side then
  if h == '\0\0\0\0\0\0\0\0' then
    redis.call('DEL', KEYS[2])
  else
    redis.call('SET', KEYS[2], '\1' .. h, 'KEEPTTL')
  end
end
return 'OK'
