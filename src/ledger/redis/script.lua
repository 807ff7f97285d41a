-- One operation of the ledger; the server runs it as a whole.
--
-- KEYS: instance, account, expiries, open, purged, revocations
-- ARGV: operation, instance, account as hex, then what the operation takes
--
-- Numbers are doubles, exact up to 2^53 - 1. The caller clamps what is sold,
-- credited or a ceiling to 2^53 - 2 and what is asked for to 2^53 - 1, so that
-- the largest ask is larger than all there can be.

local instance, account, expiries, open, purged, revocations = unpack(KEYS)
local name = ARGV[3]
local MOST = 9007199254740990

-- Another id, or none: the counts that this server's tokens are bound to are gone.
if redis.call('GET', instance) ~= ARGV[2] then
    return redis.error_reply('LOST the store is not the one that this ledger was connected to')
end

-- `tostring` would round to 14 digits.
local function text(number)
    return string.format('%.0f', number)
end

local function arg(at)
    return tonumber(ARGV[at])
end

local function get(field)
    return tonumber(redis.call('HGET', account, field) or '0')
end

local function set(field, number)
    redis.call('HSET', account, field, text(number))
end

-- The account stays until this second at least.
local function keep(expires_at)
    if get('expires_at') < expires_at then
        set('expires_at', expires_at)
        redis.call('ZADD', expiries, text(expires_at), name)
    end
end

local function available(sold, ceiling)
    return math.min(ceiling, sold + math.min(get('credited'), MOST - sold))
end

-- Removes at most 20 accounts that are due; gives the second up to which
-- accounts may be gone.
local function purge(due)
    local until_ = tonumber(redis.call('GET', purged) or '-1')
    local gone = redis.call('ZRANGEBYSCORE', expiries, '-inf', text(due), 'WITHSCORES', 'LIMIT', 0, 20)
    for i = 1, #gone, 2 do
        local key = string.sub(account, 1, -1 - #name) .. gone[i]
        for _, field in ipairs(redis.call('HKEYS', key)) do
            if string.sub(field, 1, 2) == 'r:' then
                local units = string.match(redis.call('HGET', key, field), '^(%d+):')
                redis.call('ZREM', open, gone[i] .. ':' .. string.sub(field, 3) .. ':' .. units)
            end
        end
        redis.call('UNLINK', key)
        redis.call('ZREM', expiries, gone[i])
        until_ = math.max(until_, tonumber(gone[i + 1]))
    end
    if #gone > 0 then
        redis.call('SET', purged, text(until_))
    end
    return until_
end

local operations = {}

-- nonce, units, limit, ceiling, expires_at, lease_until, due; gives what is
-- left, or -1 used up, -2 released before, -3 expired.
function operations.reserve()
    local nonce, units, limit, ceiling, expires_at = ARGV[4], arg(5), arg(6), arg(7), arg(8)
    if expires_at <= purge(arg(10)) then
        return -3
    end
    if redis.call('HEXISTS', account, 't:' .. nonce) == 1 then
        return -2
    end
    local sold = math.max(get('sold'), limit)
    local left = math.max(0, available(sold, ceiling) - get('used'))
    if redis.call('HEXISTS', account, 'r:' .. nonce) == 0 then
        if units > left then
            return -1
        end
        set('sold', sold)
        set('used', get('used') + units)
        keep(expires_at)
        redis.call('HSET', account, 'r:' .. nonce, text(units) .. ':' .. ARGV[9])
        redis.call('ZADD', open, ARGV[9], name .. ':' .. nonce .. ':' .. text(units))
        left = left - units
    end
    return left
end

-- The units and the lease's end of an open reservation.
local function reservation(nonce)
    local held = redis.call('HGET', account, 'r:' .. nonce)
    if held then
        local units, lease_until = string.match(held, '^(%d+):(%d+)$')
        return tonumber(units), tonumber(lease_until)
    end
end

local function close(nonce, units)
    redis.call('HDEL', account, 'r:' .. nonce)
    redis.call('ZREM', open, name .. ':' .. nonce .. ':' .. text(units))
end

-- nonce
function operations.commit()
    local units = reservation(ARGV[4])
    if units then
        close(ARGV[4], units)
    end
    return 0
end

-- nonce, now, keep_until
function operations.release()
    local nonce, now = ARGV[4], arg(5)
    local units, lease_until = reservation(nonce)
    if not units then
        keep(arg(6))
        redis.call('HSET', account, 't:' .. nonce, '')
    elseif lease_until > now then
        close(nonce, units)
        -- `release_cap` of the crate.
        local sold, released = get('sold') + get('credited'), get('released')
        local cap = sold == 1 and 1 or math.min(100, math.max(2, math.floor(sold / 10)))
        if released < cap then
            set('released', math.min(MOST, released + units))
            set('used', get('used') - units)
        end
    end
    return 0
end

-- event, units, expires_at
function operations.credit()
    keep(arg(6))
    if redis.call('HSETNX', account, 'e:' .. ARGV[4], '') == 1 then
        set('credited', math.min(MOST, get('credited') + arg(5)))
    end
    return 0
end

-- Gives sold, credited, used, expires_at; nothing where it was never used.
function operations.account()
    if redis.call('HEXISTS', account, 'sold') + redis.call('HEXISTS', account, 'credited') == 0 then
        return {}
    end
    return { get('sold'), get('credited'), get('used'), get('expires_at') }
end

-- how many; gives account:nonce:units and the lease's end, in turn.
function operations.open()
    return redis.call('ZRANGE', open, 0, arg(4) - 1, 'WITHSCORES')
end

-- subject, issued_before
function operations.revoke()
    local known = tonumber(redis.call('HGET', revocations, ARGV[4]) or '0')
    redis.call('HSET', revocations, ARGV[4], text(math.max(known, arg(5))))
    return 0
end

-- Gives subject and issued_before, in turn.
function operations.revocations()
    return redis.call('HGETALL', revocations)
end

return operations[ARGV[1]]()
