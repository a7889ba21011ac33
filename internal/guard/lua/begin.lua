#!lua
-- A reader missed: give it the lease, or say how long another holds it. On a
-- full Redis this is refused (OOM), and the reader reads through.
-- KEYS: 1 data key, 2 side key, 3 names, if the key has a prefix.
-- ARGV: 1 token, 2 lease in ms, 3 shield in ms,
-- 4 format of the value: 's' a string, 'h' a hash, 5 how many names there may be.
-- Returns {'HIT', value} (of a hash: its fields), {'WAIT', ms} or {'LEASE'}.
if not ARGV[5] then
  -- A sweep by names would not find what it caches.
  return redis.error_reply('ERR unstale: this client does not name its keys: it is older than the service')
end
local value
if ARGV[4] == 'h' then
  value = redis.call('HGETALL', KEYS[1])
  if #value == 0 then value = false end
else
  value = redis.call('GET', KEYS[1])
end
if value then return {'HIT', value} end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local side = redis.call('GET', KEYS[2])
-- Side key: format byte, h (8 bytes), and while a load runs its deadline
-- (8 bytes, ms of this master's TIME, big-endian) and its token.
local h = side and string.sub(side, 2, 9) or '\0\0\0\0\0\0\0\0'
if side and #side > 17 then
  local high, low = struct.unpack('>I4I4', string.sub(side, 10, 17))
  local left = high * 4294967296 + low - now
  if left > 0 then return {'WAIT', left} end
end
-- Where names are collected a sweep must find the key from before the load on.
local names = KEYS[3] and redis.call('SCARD', KEYS[3]) or 0
if names > 0 then
  if names < tonumber(ARGV[5]) then
    redis.call('SADD', KEYS[3], KEYS[1])
  else
    redis.call('UNLINK', KEYS[3]) -- they cost more than they spare
  end
end
local deadline = now + tonumber(ARGV[2])
redis.call('SET', KEYS[2], '\1' .. h .. struct.pack('>I4I4', math.floor(deadline / 4294967296), deadline % 4294967296) .. ARGV[1], 'PX', ARGV[3])
return {'LEASE'}
