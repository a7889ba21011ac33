#!lua flags=allow-oom
-- Give a lease back without a value, so that the next reader need not wait for
-- its deadline.
-- KEYS: 1 side key. ARGV: 1 token.
local side = redis.call('GET', KEYS[1])
if side and string.sub(side, 18) == ARGV[1] then
  if string.sub(side, 2, 9) == '\0\0\0\0\0\0\0\0' then
    redis.call('DEL', KEYS[1])
  else
    redis.call('SET', KEYS[1], string.sub(side, 1, 9), 'KEEPTTL')
  end
end
return 'OK'
