#!lua flags=allow-oom
-- Give a lease back without a value, so that the next reader need not wait for
-- its deadline. Entries that never SET only.
-- KEYS: 1 side key. ARGV: 1 token.
local side = redis.call('GET', KEYS[1])
if side and string.sub(side, 18) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 'OK'
