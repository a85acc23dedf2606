--- Drives a second Neovim as a user would: sends keys, reads the buffer and the screen.
---
--- `run` prints one line per test, and exits with 1 if one failed.

local M = {}

---@class Editor
---@field channel integer
---@field folder string a folder of its own, with a cargo package in it
local Editor = {}
Editor.__index = Editor

local here = vim.fs.dirname(vim.fs.normalize(vim.fn.fnamemodify(debug.getinfo(1, 'S').source:sub(2), ':p')))
M.plugin_folder = vim.fs.dirname(here)
M.server_command = { vim.env.NVIM, '-l', vim.fs.joinpath(here, 'server.lua') }

local function write(path, text)
  vim.fn.mkdir(vim.fs.dirname(path), 'p')
  local file = assert(io.open(path, 'w'))
  file:write(text)
  file:close()
end
M.write = write

--- Starts Neovim with nothing but the plugin on its runtime path.
---@param folder? string an existing cargo package
---@return Editor
function M.start(folder)
  local own = not folder
  if own then
    folder = vim.fn.tempname()
    write(vim.fs.joinpath(folder, 'Cargo.toml'), '[package]\nname = "p"\nversion = "0.1.0"\nedition = "2024"\n')
    write(vim.fs.joinpath(folder, 'src/main.rs'), '')
  end
  local state = vim.fn.tempname()
  local channel = vim.fn.jobstart(
    { vim.env.NVIM, '--clean', '--headless', '--embed', '-n', '--cmd', 'set rtp^=' .. vim.fn.fnameescape(M.plugin_folder) },
    { rpc = true, cwd = folder, env = { XDG_STATE_HOME = state, XDG_CONFIG_HOME = state, XDG_DATA_HOME = state } }
  )
  assert(channel > 0, 'Neovim did not start')
  local editor = setmetatable({ channel = channel, folder = folder, own = own }, Editor)
  editor:lua([[
    messages = {}
    vim.notify = function(text, level) table.insert(messages, { text = text, level = level }) end
  ]])
  return editor
end

--- Runs Lua in the editor.
function Editor:lua(code, ...)
  return vim.rpcrequest(self.channel, 'nvim_exec_lua', code, { ... })
end

--- Presses keys; Neovim reads them as if typed.
function Editor:press(keys)
  local written = vim.rpcrequest(self.channel, 'nvim_input', keys)
  assert(written == #keys, 'the input queue is full')
end

--- Waits until `condition` returns a true value, and returns that.
function Editor:wait(what, condition, seconds)
  local result
  local ok = vim.wait((seconds or 10) * 1000, function()
    result = condition()
    return result
  end, 20)
  if not ok then
    error(('%s did not happen; %s'):format(what, vim.inspect(self:look())), 2)
  end
  return result
end

--- Everything a user sees of the buffer, its ghost included.
function Editor:look()
  return self:lua([[
    vim.cmd.redraw()
    local ns = vim.api.nvim_create_namespace('nvim.lsp.inline_completion')
    local ghost = {}
    for _, mark in ipairs(vim.api.nvim_buf_get_extmarks(0, ns, 0, -1, { details = true })) do
      for _, chunk in ipairs(mark[4].virt_text or {}) do
        table.insert(ghost, chunk[1])
      end
      for _, line in ipairs(mark[4].virt_lines or {}) do
        table.insert(ghost, '\n' .. line[1][1])
      end
    end
    local screen = {}
    for row = 1, vim.o.lines do
      local cells = {}
      for column = 1, vim.o.columns do
        cells[column] = vim.fn.screenstring(row, column)
      end
      screen[row] = table.concat(cells):gsub('%s+$', '')
    end
    return {
      mode = vim.api.nvim_get_mode().mode,
      lines = vim.api.nvim_buf_get_lines(0, 0, -1, false),
      cursor = vim.api.nvim_win_get_cursor(0),
      ghost = #ghost > 0 and table.concat(ghost) or nil,
      screen = table.concat(screen, '\n'):gsub('[%s~]+$', ''),
      messages = messages,
    }
  ]])
end

function Editor:text()
  return table.concat(self:lua('return vim.api.nvim_buf_get_lines(0, 0, -1, false)'), '\n')
end

--- Opens a file and waits until the server is attached to it.
function Editor:open(path, seconds)
  self:lua('vim.cmd.edit(...)', path)
  self:wait('the server attaching', function()
    return self:lua([[return #vim.lsp.get_clients({ name = 'nanochat', bufnr = 0 }) > 0
      and vim.lsp.inline_completion.is_enabled({ bufnr = 0 })]])
  end, seconds)
end

--- Waits until the ghost is exactly `text`, or any text, and until it is on the screen too.
function Editor:wait_for_ghost(text, seconds)
  return self:wait('the ghost ' .. vim.inspect(text), function()
    local ghost = self:look().ghost
    return ghost and (text == nil or ghost == text) and ghost
  end, seconds)
end

function Editor:wait_for_text(text)
  self:wait('the text ' .. vim.inspect(text), function()
    return self:text() == text
  end, 5)
end

--- Waits for debounce, request and response, for a test that expects nothing to happen.
function Editor:settle()
  vim.wait(600)
end

function Editor:stop()
  pcall(vim.rpcnotify, self.channel, 'nvim_command', 'qall!')
  if vim.fn.jobwait({ self.channel }, 5000)[1] == -1 then
    vim.fn.jobstop(self.channel)
    error('Neovim did not quit')
  end
  if self.own then
    vim.fn.delete(self.folder, 'rf')
  end
end

function M.equal(actual, expected, what)
  if not vim.deep_equal(actual, expected) then
    error(('%s: expected %s, found %s'):format(what, vim.inspect(expected), vim.inspect(actual)), 2)
  end
end

--- Runs tests in the order given and ends the process.
---@param tests { [1]: string, [2]: fun() }[]
---@param only? string runs the tests whose name contains this
function M.run(tests, only)
  tests = vim.tbl_filter(function(test)
    return not only or test[1]:find(only, 1, true) ~= nil
  end, tests)
  assert(#tests > 0, 'no test has that name')
  local failed = 0
  for _, test in ipairs(tests) do
    local ok, problem = xpcall(test[2], debug.traceback)
    io.stdout:write(('%s %s\n'):format(ok and 'ok  ' or 'FAIL', test[1]))
    if not ok then
      failed = failed + 1
      io.stdout:write('     ' .. problem:gsub('\n', '\n     ') .. '\n')
    end
    io.stdout:flush()
  end
  io.stdout:write(('%d passed, %d failed\n'):format(#tests - failed, failed))
  io.stdout:flush()
  os.exit(failed == 0 and 0 or 1)
end

return M
