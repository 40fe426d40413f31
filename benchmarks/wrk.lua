-- The requests of one run of wrk, and its figures as one line that benchmarks/client.py reads.
-- usage: wrk ... -s wrk.lua URL -- MODE [FILE [SEED [PAUSE]]]
--   plain                 wrk's own request (path of the URL, fields of -H)
--   turns FILE            the requests of FILE, NUL between them, one after the other
--   random FILE SEED      a request of FILE, by chance
--   new FILE SEED         the request of FILE, each time with another number where it says @
-- With PAUSE, each connection rests before a request, for so many ms on average.

local requests, count, at = {}, 0, 0

local function read(name)
  local file = assert(io.open(name, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

local function parts(text, pattern)
  local found = {}
  for part in text:gmatch(pattern) do
    found[#found + 1] = part
  end
  return found
end

function init(args)
  local mode = args[1]
  local pause = tonumber(args[4] or "0")
  if pause > 0 then
    function delay()
      return math.random(0, 2 * pause)
    end
  end
  if mode == "plain" then
    return
  elseif mode == "new" then
    local pieces, number = parts(read(args[2]), "[^@]+"), tonumber(args[3])
    function request()
      number = number + 1
      return table.concat(pieces, tostring(number))
    end
    return
  end
  requests = parts(read(args[2]), "[^%z]+")
  count = #requests
  if mode == "turns" then
    function request()
      at = at % count + 1
      return requests[at]
    end
  else
    math.randomseed(tonumber(args[3]))
    local random = math.random
    function request()
      return requests[random(count)]
    end
  end
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    'RESULT {"requests": %d, "seconds": %.6f, "bytes": %d, "p50_us": %d, "p99_us": %d, '
      .. '"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}\n',
    summary.requests, summary.duration / 1e6, summary.bytes, latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.timeout, e.status))
end
