-- Write a loaded value, if the lease still stands. Entries that never SET only.
-- Without a shebang on purpose: such a script starts on a full Redis too, where
-- its SET is refused and its DEL is not.
-- KEYS: 1 data key, 2 side key. ARGV: 1 token, 2 value, 3 ttl in ms.
-- Returns STORED or REFUSED: the value is right for this caller, not cached.
local side = redis.call('GET', KEYS[2])
-- The token is gone: a change came in between, or the side key expired, was
-- evicted or flushed. Whatever the reason, what was loaded may be old.
if not side or string.sub(side, 18) ~= ARGV[1] then return 'REFUSED' end
local t = redis.call('TIME')
local high, low = struct.unpack('>I4I4', string.sub(side, 10, 17))
-- A sweep's second pass relies on the deadline.
local late = high * 4294967296 + low <= t[1] * 1000 + math.floor(t[2] / 1000)
local stored = false
if not late then
  stored = redis.pcall('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  stored = type(stored) == 'table' and not stored.err
end
redis.call('DEL', KEYS[2])
return stored and 'STORED' or 'REFUSED'
