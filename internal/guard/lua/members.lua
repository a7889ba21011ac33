#!lua flags=allow-oom
-- What sets of an index answer.
-- KEYS: the sets. ARGV: 1 how many members may be given, of all together, 2 the member of
-- this reading.
-- Returns for each set its members, with what it says of itself; 'LATER': that would be too
-- many with those of the others; 'LARGE': that were too many, and the set has the member of
-- this reading until it is another one; 'INCOMPLETE': some may be missing.
local most = tonumber(ARGV[1])
local left = most
local answers = {}
for i, set in ipairs(KEYS) do
  if redis.call('SISMEMBER', set, 'complete') == 0 then
    answers[i] = 'INCOMPLETE'
  else
    local members = redis.call('SCARD', set)
    if members <= left then
      left = left - members
      answers[i] = redis.call('SMEMBERS', set)
    elseif members <= most then
      answers[i] = 'LATER'
    else
      redis.call('SADD', set, ARGV[2])
      answers[i] = 'LARGE'
    end
  end
end
return answers
