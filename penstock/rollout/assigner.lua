-- Assigner: sets x-rollout-bucket from x-user-id and the table's salt; what a client sent under
-- x-rollout-* was removed before. Hashes the bearer token, where there is one. SHA-256 after FIPS
-- 180-4; the bucket is the first eight bytes of the digest modulo 64, which is the low six bits of
-- its second word.
local bit = require("bit")
local band, bnot, bxor = bit.band, bit.bnot, bit.bxor
local ror, shr, tobit = bit.ror, bit.rshift, bit.tobit

local K = {
  0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
  0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
  0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
  0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
  0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
  0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
  0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
  0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
}
local START = {
  0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
}

local function padded(text)
  local length = #text
  local zeros = (55 - length) % 64
  local bits = length * 8
  return text .. "\128" .. string.rep("\0", zeros + 4) .. string.char(
    band(shr(bits, 24), 255), band(shr(bits, 16), 255), band(shr(bits, 8), 255), band(bits, 255))
end

local function compress(state, block)
  local w = {}
  for i = 1, 16 do
    local p, q, r, s = string.byte(block, i * 4 - 3, i * 4)
    w[i] = bit.bor(bit.lshift(p, 24), bit.lshift(q, 16), bit.lshift(r, 8), s)
  end
  for i = 17, 64 do
    local x, y = w[i - 15], w[i - 2]
    local small = bxor(ror(x, 7), ror(x, 18), shr(x, 3))
    local large = bxor(ror(y, 17), ror(y, 19), shr(y, 10))
    w[i] = tobit(w[i - 16] + small + w[i - 7] + large)
  end
  local a, b, c, d, e, f, g, h = unpack(state)
  for i = 1, 64 do
    local s1 = bxor(ror(e, 6), ror(e, 11), ror(e, 25))
    local choose = bxor(band(e, f), band(bnot(e), g))
    local t1 = tobit(h + s1 + choose + tobit(K[i]) + w[i])
    local s0 = bxor(ror(a, 2), ror(a, 13), ror(a, 22))
    local majority = bxor(band(a, b), band(a, c), band(b, c))
    h, g, f, e = g, f, e, tobit(d + t1)
    d, c, b, a = c, b, a, tobit(t1 + s0 + majority)
  end
  local work = { a, b, c, d, e, f, g, h }
  for i = 1, 8 do
    state[i] = tobit(state[i] + work[i])
  end
end

local function digest(text)
  local message = padded(text)
  local state = {}
  for i = 1, 8 do
    state[i] = tobit(START[i])
  end
  for at = 1, #message, 64 do
    compress(state, string.sub(message, at, at + 63))
  end
  return state
end

local function bucket(text)
  return band(digest(text)[2], 63)
end

-- The token's hash takes its place: tokens are compared, kept and dumped as hashes only.
local function hashed(authorization)
  local token = string.match(authorization, "^[Bb]earer +([%w%-%._~%+/]+=*)$")
  if token == nil or #token > 250 then
    return "none"
  end
  local words = digest(token)
  for i = 1, 8 do
    words[i] = bit.tohex(words[i])
  end
  return "Bearer " .. table.concat(words)
end

function envoy_on_request(handle)
  local headers = handle:headers()
  -- Two names would be one user here and another in a server's log. The edge turns 421 into words.
  if headers:getNumValues("x-user-id") > 1 then
    handle:respond({ [":status"] = "421" }, "two users")
    return
  end
  local authorization = headers:get("authorization")
  if authorization ~= nil then
    headers:replace("authorization", hashed(authorization))
  end
  local salt = handle:metadata():get("salt") or ""
  local user = headers:get("x-user-id") or headers:get("x-request-id") or ""
  headers:replace("x-rollout-bucket", tostring(bucket(salt .. ":" .. user)))
  handle:clearRouteCache()
end
