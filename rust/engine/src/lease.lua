-- One limit of a fleet: who holds how much of it. Leases are rates; nobody is given what another still holds.
-- KEYS[1] a hash: sidecar -> "held demand expires", "#" -> when it began (milliseconds of the store's clock)
-- ARGV: sidecar, limit, demand, held, lease (ms), warm-up (ms), the most sidecars
-- Gives what is leased, what fairness alone would give, and how many entries could not be right.
-- The entries may be anybody's, and of another clock: one that cannot be right counts for nothing, or for one lease.
local key, me = KEYS[1], ARGV[1]
local limit, demand, held = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local lease, warm_up, most = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local wrong = 0

-- A number that is not negative and has an end; nan is neither.
local function number(text)
    local value = text and #text <= 32 and tonumber(text)
    return value and value >= 0 and value < math.huge and value or nil
end

local kind = redis.call('TYPE', key)['ok']
if kind ~= 'none' and (kind ~= 'hash' or redis.call('HLEN', key) > most) then
    redis.call('DEL', key)
    wrong = 1
end
local told = redis.call('HGET', key, '#')
local began = number(told)
if not began or began > now then
    if told then wrong = wrong + 1 end
    began = now
    redis.call('HSET', key, '#', string.format('%d', now))
end
local others, demands = 0, { demand }
local all = redis.call('HGETALL', key)
for at = 1, #all, 2 do
    local who, entry = all[at], all[at + 1]
    if who ~= '#' and who ~= me then
        local theirs, wanted, expires
        if #entry <= 100 then theirs, wanted, expires = string.match(entry, '^(%S+) (%S+) (%S+)$') end
        theirs, wanted, expires = number(theirs), number(wanted), number(expires)
        if not (theirs and wanted and expires) then
            redis.call('HDEL', key, who)
            wrong = wrong + 1
        elseif expires < now then
            redis.call('HDEL', key, who)
        else
            theirs, wanted = math.min(theirs, limit), math.min(wanted, limit)
            if expires > now + lease then
                -- Of a clock that was ahead, as before a failover: it counts for one lease, if its sidecar does not come back sooner.
                redis.call('HSET', key, who, string.format('%.17g %.17g %d', theirs, wanted, now + lease))
                wrong = wrong + 1
            end
            others = others + theirs
            demands[#demands + 1] = wanted
        end
    end
end
-- Max-min fairness: small demands are met, the large ones share what is left.
table.sort(demands)
local left, fair = limit, limit
for at, wanted in ipairs(demands) do
    local share = left / (#demands - at + 1)
    if wanted >= share then
        fair = share
        break
    end
    left = left - wanted
end
local due = math.min(demand, fair)
local grant = math.min(due, math.max(limit - others, 0))
if now - began < warm_up then
    -- A store that has forgotten does not know who holds what: until all have told, nobody gets more than they have.
    grant = math.min(grant, held)
end
redis.call('HSET', key, me, string.format('%.17g %.17g %d', grant, demand, now + lease))
redis.call('PEXPIRE', key, 60000)
return { string.format('%.17g', grant), string.format('%.17g', due), wrong }
