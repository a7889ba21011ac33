#!lua flags=allow-oom
-- A sweep drops keys that it has found by their names, and the names with them: a lease
-- that is given behind this names its key again.
-- KEYS: 1 names; then data keys and side keys by turns.
-- Returns how many of the data keys there were.
local dropped = 0
for i = 2, #KEYS, 2 do
  dropped = dropped + redis.call('UNLINK', KEYS[i])
  redis.call('UNLINK', KEYS[i + 1])
  redis.call('SREM', KEYS[1], KEYS[i])
end
return dropped
