--- A language server for the plugin's own tests: `nvim -l server.lua JOURNAL`.
---
--- It knows three sentences and completes what follows them. Only plugin.lua uses it; the end-to-end test runs the real
--- server. What a client sends other than edits is written to JOURNAL, one line each.

local journal = assert(io.open(arg[1], 'a'))

--- What follows a sentence, and whether the completion's range starts at the cursor or right after the sentence.
local sentences = {
  { after = 'let total = ', text = 'compute_total(items);', from_cursor = true },
  { after = 'let healed = ', text = 'compute_total(items);', from_cursor = false },
  { after = 'fn main() ', text = '{\n    run();\n}', from_cursor = true },
}

local documents = {}

--- Writes a line to the journal, unless the client sent no value.
local function note(what, value)
  if value ~= nil and value ~= vim.NIL then
    journal:write(('%s %s\n'):format(what, vim.json.encode(value)))
    journal:flush()
  end
end

local function send(message)
  message.jsonrpc = '2.0'
  local body = vim.json.encode(message)
  io.stdout:write(('Content-Length: %d\r\n\r\n%s'):format(#body, body))
  io.stdout:flush()
end

local function receive()
  local length
  for header in io.lines() do
    header = header:gsub('\r$', '')
    if header == '' then
      return vim.json.decode(assert(io.read(length)))
    end
    length = tonumber(header:match('^Content%-Length: (%d+)$')) or length
  end
end

--- Positions are in bytes: this server chooses utf-8.
local function complete(params)
  local lines = vim.split(documents[params.textDocument.uri], '\n', { plain = true })
  local position = params.position
  local before = lines[position.line + 1]:sub(1, position.character)
  for _, sentence in ipairs(sentences) do
    local _, stop = before:find(sentence.after, 1, true)
    local typed = stop and before:sub(stop + 1)
    if typed and #typed < #sentence.text and vim.startswith(sentence.text, typed) then
      local start = sentence.from_cursor and position.character or stop
      return {
        {
          insertText = sentence.from_cursor and sentence.text:sub(#typed + 1) or sentence.text,
          range = { start = { line = position.line, character = start }, ['end'] = position },
          command = { title = 'accepted', command = 'accepted', arguments = { sentence.after } },
        },
      }
    end
  end
  return {}
end

local handlers = {
  initialize = function(params)
    note('initialize', params.initializationOptions)
    return {
      capabilities = {
        positionEncoding = 'utf-8',
        textDocumentSync = 1,
        inlineCompletionProvider = true,
        executeCommandProvider = { commands = { 'accepted', 'nanochat.status' } },
      },
      serverInfo = { name = 'scripted', version = '1' },
    }
  end,
  shutdown = function()
    return vim.NIL
  end,
  exit = function()
    os.exit(0)
  end,
  ['textDocument/didOpen'] = function(params)
    documents[params.textDocument.uri] = params.textDocument.text
  end,
  ['textDocument/didChange'] = function(params)
    documents[params.textDocument.uri] = params.contentChanges[1].text
  end,
  ['textDocument/inlineCompletion'] = complete,
  ['workspace/didChangeConfiguration'] = function(params)
    note('settings', params.settings)
  end,
  ['workspace/executeCommand'] = function(params)
    note(params.command, params.arguments)
    return params.command == 'nanochat.status' and { state = 'silent', reason = 'it is scripted' } or vim.NIL
  end,
}

for message in receive do
  local handler = handlers[message.method]
  local result = handler and handler(message.params)
  if message.id and message.method then
    if handler then
      send({ id = message.id, result = result })
    else
      send({ id = message.id, error = { code = -32601, message = 'no such method' } })
    end
  end
end
