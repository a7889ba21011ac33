#!lua flags=allow-oom
-- Put a member in the place of the draft of a slot's names, if that still stands: no
-- name was lost since. It comes before the draft goes: a set that has nothing else would
-- be gone, and another without an end in its place.
-- KEYS: 1 names. ARGV: 1 the draft, 2 another one, or the seal.
if ARGV[1] ~= ARGV[2] and redis.call('SISMEMBER', KEYS[1], ARGV[1]) == 1 then
  redis.call('SADD', KEYS[1], ARGV[2])
  redis.call('SREM', KEYS[1], ARGV[1])
end
return 'OK'
