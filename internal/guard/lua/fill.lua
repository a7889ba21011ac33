-- Write a loaded value, if the lease still stands.
-- Without a shebang on purpose: such a script starts on a full Redis too, where
-- what needs memory is refused, as long as nothing was written before it.
-- KEYS: 1 data key, 2 side key.
-- ARGV: 1 token, 2 H: the insert position of the log after the load, eight bytes
--       big-endian; empty: no change that the load has seen can SET this key any
--       more (its entry never SETs, or the stream has passed H),
--       3 shield in ms, 4 ttl in ms, 5 format: 's' a string, 'h' a hash,
--       6.. the value, or its fields, name and value by turns.
-- Returns STORED; or REFUSED, since a change came in between, or FULL, since Redis
-- is: the value is right for this caller, not cached.
local side = redis.call('GET', KEYS[2])
-- The token is gone: a change came in between, or the side key expired, was
-- evicted or flushed. Whatever the reason, what was loaded may be old.
if not side or string.sub(side, 18) ~= ARGV[1] then return 'REFUSED' end
local h = string.sub(side, 2, 9)
local full = false
local function try(...)
  local reply = redis.pcall(...)
  local ok = type(reply) ~= 'table' or not reply.err
  full = full or not ok and string.find(reply.err, 'OOM', 1, true) ~= nil
  return ok
end
-- The shield comes first: without it the value must not be shown.
-- H is not below an earlier shield: it was read behind the lease, and whatever
-- has raised the shield since has ended the lease.
local stored = ARGV[2] == '' or try('SET', KEYS[2], '\1' .. ARGV[2], 'PX', ARGV[3])
if stored then
  if ARGV[5] == 'h' then
    if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('UNLINK', KEYS[1]) end
    stored = try('HSET', KEYS[1], unpack(ARGV, 6))
    if stored then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
  else
    stored = try('SET', KEYS[1], ARGV[6], 'PX', ARGV[4])
  end
end
if not stored or ARGV[2] == '' then
  -- The lease ends; an older shield stays for as long as it would have.
  if h == '\0\0\0\0\0\0\0\0' then
    redis.call('DEL', KEYS[2])
  else
    -- Refused on a full Redis: then the lease ends at its deadline.
    try('SET', KEYS[2], '\1' .. h, 'KEEPTTL')
  end
end
return stored and 'STORED' or full and 'FULL' or 'REFUSED'
