#!lua flags=allow-oom
-- Put a member in the place of the draft of a slot's names, if that still stands: no
-- name was lost since.
-- KEYS: 1 names. ARGV: 1 the draft, 2 another one, or the seal.
if redis.call('SREM', KEYS[1], ARGV[1]) == 1 then redis.call('SADD', KEYS[1], ARGV[2]) end
return 'OK'
