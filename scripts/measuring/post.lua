-- Posts one body repeatedly and prints a JSON object with counts and percentiles.
--
-- Arguments: BODY_FILE HEADER_LENGTH WARM_UP_SECONDS RATE
--
-- With RATE > 0 a thread sends RATE requests per second at random times (a Poisson process), each on
-- a free connection. With RATE 0 each connection sends its next request when it has a response.
-- Responses of the first WARM_UP_SECONDS are not counted.
--
-- wrk's hooks do not know their connection. Responses are matched by the id in the JSON header:
-- PLACEHOLDER in the body becomes a number. Bodies without it need one connection per thread.

local ffi = require("ffi")
ffi.cdef [[
typedef struct { long seconds; long nanoseconds; } moment;
int clock_gettime(int clock, moment *now);
]]

local PLACEHOLDER = "id-00000000"
local MONOTONIC = 1
local OK, UNAVAILABLE = 200, 503

local moment = ffi.new("moment")
local threads, due, sent = {}, 0, {}

-- Global, because done() reads them from each thread. Times are in milliseconds.
answered, refusals, refused, failed, first_error = {}, {}, 0, 0, ""
first, last, start = 0, 0, 0

local function milliseconds()
   ffi.C.clock_gettime(MONOTONIC, moment)
   return tonumber(moment.seconds) * 1e3 + tonumber(moment.nanoseconds) / 1e6
end

-- Returns the time until a connection sends next. Requests without a free connection are skipped.
local function until_due(mean_gap)
   local now = milliseconds()
   due = math.max(due, now) - mean_gap * math.log(1 - math.random())
   return due - now
end

function setup(thread) table.insert(threads, thread) end

function init(args)
   local file = assert(io.open(args[1], "rb"))
   local body = file:read("*a")
   file:close()
   wrk.method, wrk.body = "POST", body
   wrk.headers["Inference-Header-Content-Length"] = args[2]
   warm_up = tonumber(args[3]) * 1e3
   local rate = tonumber(args[4])
   if rate > 0 then delay = function() return until_due(1e3 / rate) end end
   whole = wrk.format()
   local from, to = whole:find(PLACEHOLDER, 1, true)
   if from then before, after, serial = whole:sub(1, from - 1), whole:sub(to + 1), 0 end
end

function request()
   local now = milliseconds()
   if start == 0 then start = now end
   if not serial then
      sent.only = now
      return whole
   end
   serial = serial + 1
   local id = string.format("id-%08d", serial)
   sent[id] = now
   return before .. id .. after
end

function response(status, headers, body)
   local now = milliseconds()
   local id = serial and body:match("id%-%d+") or "only"
   local since
   since, sent[id] = sent[id], nil
   if status ~= OK and first_error == "" then first_error = status .. " " .. body:sub(1, 300) end
   if now < start + warm_up then return end
   if status == OK and since then
      if #answered == 0 then first = now end
      last = now
      table.insert(answered, now - since)
   elseif status == UNAVAILABLE then
      refused = refused + 1
      if since then table.insert(refusals, now - since) end
   else
      failed = failed + 1
   end
end

local function percentile(times, share)
   if #times == 0 then return "null" end
   table.sort(times)
   return string.format("%.4f", times[math.max(1, math.ceil(share * #times))])
end

-- The time from the first answer to the last contains all answers but one. Requests in flight when
-- counting starts and ends would otherwise distort the rate.
local function rate(thread, count, seconds)
   local span = (thread:get("last") - thread:get("first")) / 1e3
   if count > 1 and span > 0 then return (count - 1) / span end
   return count / seconds
end

local function append(list, values)
   for _, each in ipairs(values) do table.insert(list, each) end
end

function done(summary)
   local times, refusal_times, total_rate, total_refused, reason = {}, {}, 0, 0, ""
   local errors = summary.errors
   local total_failed = errors.connect + errors.read + errors.write + errors.timeout
   local seconds = summary.duration / 1e6 - threads[1]:get("warm_up") / 1e3
   for _, thread in ipairs(threads) do
      local answers = thread:get("answered")
      append(times, answers)
      append(refusal_times, thread:get("refusals"))
      total_rate = total_rate + rate(thread, #answers, seconds)
      total_refused = total_refused + thread:get("refused")
      total_failed = total_failed + thread:get("failed")
      if reason == "" then reason = thread:get("first_error") end
   end
   io.write(string.format(
      '{"seconds": %.3f, "rate": %.4f, "answered": %d, "p50_ms": %s, "p99_ms": %s, ' ..
      '"refused": %d, "refusal_p50_ms": %s, "failed": %d, "error": "%s"}\n',
      seconds, total_rate, #times, percentile(times, 0.5), percentile(times, 0.99), total_refused,
      percentile(refusal_times, 0.5), total_failed, reason:gsub('[%c"\\]+', " ")
   ))
end
