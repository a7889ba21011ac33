#!lua flags=allow-oom
-- A sweep drops a key of an entry that SETs: the lease dies, the shield stays.
-- KEYS: 1 data key, 2 side key.
redis.call('UNLINK', KEYS[1])
local side = redis.call('MGET', KEYS[2])[1] -- what is no string is nothing
if side then
  if string.sub(side, 2, 9) == '\0\0\0\0\0\0\0\0' then
    redis.call('DEL', KEYS[2])
  elseif #side > 9 then
    redis.call('SET', KEYS[2], string.sub(side, 1, 9), 'KEEPTTL')
  end
end
return 'OK'
