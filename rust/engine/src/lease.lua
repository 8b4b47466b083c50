-- One limit of a fleet: who holds how much of it. Leases are rates; nobody is given what another still holds.
-- KEYS[1] a hash: sidecar -> "held demand expires", "#" -> when it began (milliseconds of the store's clock)
-- ARGV: sidecar, limit, demand, held, lease (ms), warm-up (ms)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local me, limit, demand, held = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local began = tonumber(redis.call('HGET', KEYS[1], '#'))
if not began then
    began = now
    redis.call('HSET', KEYS[1], '#', now)
end
local others, demands = 0, { demand }
local all = redis.call('HGETALL', KEYS[1])
for at = 1, #all, 2 do
    if all[at] ~= '#' and all[at] ~= me then
        local theirs, wanted, expires = string.match(all[at + 1], '^(%S+) (%S+) (%S+)$')
        theirs, wanted, expires = tonumber(theirs), tonumber(wanted), tonumber(expires)
        if not expires or expires < now then
            redis.call('HDEL', KEYS[1], all[at])
        else
            others = others + theirs
            demands[#demands + 1] = wanted
        end
    end
end
-- Max-min fairness: small demands are met, the large ones share what is left.
table.sort(demands)
local left, fair = limit, 0
for at, wanted in ipairs(demands) do
    fair = left / (#demands - at + 1)
    if wanted >= fair then break end
    left = left - wanted
    fair = left
end
local grant = math.min(demand, fair, math.max(limit - others, 0))
if now - began < tonumber(ARGV[6]) then
    -- A store that has forgotten does not know who holds what: until all have told, nobody gets more than they have.
    grant = math.min(grant, held)
end
redis.call('HSET', KEYS[1], me, string.format('%.17g %.17g %d', grant, demand, now + ARGV[5]))
redis.call('PEXPIRE', KEYS[1], 60000)
return string.format('%.17g', grant)
