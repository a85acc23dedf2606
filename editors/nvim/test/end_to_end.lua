--- The whole path: trains on a workspace, starts the real server from a real editor, turns a keystroke into ghost text
--- and accepts it. `nvim -l end_to_end.lua SERVER TRAINER`, with the data root in NANOCHAT_HOME.

package.path = vim.fs.dirname(vim.fn.fnamemodify(arg[0], ':p')) .. '/?.lua;' .. package.path
local harness = require('harness')
local server, trainer = arg[1], arg[2]

-- Names that no program has used before: a completion that contains one comes from this workspace.
math.randomseed(vim.uv.hrtime() % 2 ^ 31)
local function invented()
  local letters = {}
  for index = 1, 8 do
    letters[index] = string.char(string.byte('a') + math.random(0, 25))
  end
  return table.concat(letters)
end
local ledger, settle = invented(), invented()

--- A package whose modules do the same to different things, as much code does.
local function write_package(folder)
  local modules = {}
  harness.write(folder .. '/Cargo.toml', '[package]\nname = "trained_on"\nversion = "0.1.0"\nedition = "2024"\n\n[workspace]\n')
  for index = 1, 16 do
    local name = ('part_%d'):format(index)
    table.insert(modules, ('pub mod %s;\n'):format(name))
    local functions = {}
    for _ = 1, 10 do
      table.insert(functions, ([[
/// Settles what is open in account %s.
pub fn %s(account: u64, amount: i64) -> i64 {
    let settled = %s::%s(account, amount);
    if settled > amount {
        return amount;
    }
    settled
}
]]):format(invented(), invented(), ledger, settle))
    end
    harness.write(('%s/src/%s.rs'):format(folder, name), ('use crate::%s;\n\n'):format(ledger) .. table.concat(functions, '\n'))
  end
  harness.write(('%s/src/%s.rs'):format(folder, ledger), ('pub fn %s(account: u64, amount: i64) -> i64 {\n    amount - (account %% 7) as i64\n}\n'):format(settle))
  table.insert(modules, ('pub mod %s;\npub mod typed;\n'):format(ledger))
  harness.write(folder .. '/src/lib.rs', table.concat(modules))
  harness.write(folder .. '/src/typed.rs', ('use crate::%s;\n\n'):format(ledger))
end

local folder = vim.fn.tempname()
write_package(folder)

io.stdout:write('training\n')
io.stdout:flush()
local started = vim.uv.hrtime()
local trained = vim
  .system({ trainer, 'train', '--manifest-path', folder .. '/Cargo.toml', '--recipe', 'test' }, { text = true, timeout = 15 * 60 * 1000 })
  :wait()
assert(trained.code == 0, ('training ended with %d (signal %d):\n%s\n%s'):format(trained.code, trained.signal, trained.stdout, trained.stderr))
io.stdout:write(('trained in %.0f s\n%s'):format((vim.uv.hrtime() - started) / 1e9, trained.stdout))

local opening = 'pub fn typed_here(account: u64, amount: i64) -> i64 {'
local statement = 'let settled = '
local line = '    ' .. statement -- Neovim indents it, as it would for a user

--- The server's status.
local function status_of(editor)
  return editor:lua([[local client = vim.lsp.get_clients({ name = 'nanochat' })[1]
    return client:request_sync('workspace/executeCommand', { command = 'nanochat.status' }, 5000).result]])
end

local function in_editor(body)
  return function()
    local editor = harness.start(folder)
    local ok, problem = xpcall(function()
      editor:lua([[
        vim.o.columns, vim.o.lines = 120, 40
        require('nanochat').setup({ cmd = { ... } })
      ]], server)
      editor:open('src/typed.rs', 60)
      -- Neovim requests a completion when the cursor moves: one requested before checkpoint and memory are loaded may be
      -- lost.
      editor:wait('the server being ready', function()
        local status = status_of(editor)
        assert(status.state ~= 'silent', status.reason)
        return status.state == 'ready'
      end, 120)
      editor:press('Go' .. opening .. '<CR>' .. statement)
      body(editor)
      harness.equal(editor:look().messages, {}, 'messages')
    end, function(problem)
      local log = editor:lua([[local name = vim.lsp.log.get_filename()
        return vim.fn.filereadable(name) == 1 and table.concat(vim.fn.readfile(name), '\n') or 'none']])
      return debug.traceback(problem) .. '\nlog: ' .. log
    end)
    editor:stop()
    assert(ok, problem)
  end
end

--- The line that the cursor is on.
local function current_line(editor)
  return editor:lua('return vim.api.nvim_get_current_line()')
end

local function wait_for_line(editor, expected)
  editor:wait('the line ' .. vim.inspect(expected), function()
    return current_line(editor) == expected
  end, 5)
end

-- Long enough for a debug build on a busy machine.
local answer_seconds = 60

harness.run({
  {
    'a keystroke becomes ghost text that knows the workspace, and tab accepts it',
    in_editor(function(editor)
      local ghost = editor:wait_for_ghost(nil, answer_seconds)
      assert(ghost:find(ledger, 1, true), ('the ghost %q lacks %q'):format(ghost, ledger))
      local screen = editor:look().screen
      local shown = line .. vim.split(ghost, '\n')[1]
      assert(screen:find(shown, 1, true), ('%q is not on the screen:\n%s'):format(shown, screen))
      harness.equal(current_line(editor), line, 'the line before accepting')
      editor:press('<Tab>')
      local accepted = vim.split(line .. ghost, '\n')
      wait_for_line(editor, accepted[#accepted])
      local lines = editor:lua('return vim.api.nvim_buf_get_lines(0, -1 - ..., -1, false)', #accepted)
      harness.equal(lines, accepted, 'the lines after accepting')
      editor:wait('the server counting one accepted suggestion', function()
        return status_of(editor).counts.accepted == 1
      end)
    end),
  },
  {
    'text typed before the accepting key is in the file once',
    in_editor(function(editor)
      local ghost = editor:wait_for_ghost(nil, answer_seconds)
      local first = vim.split(ghost, '\n')[1]
      assert(#first > 3, ('the ghost %q is too short to type ahead'):format(first))
      -- One burst: the server has not seen these characters when the key arrives.
      editor:press((first:sub(1, 3):gsub('<', '<lt>')) .. '<Tab>')
      local accepted = vim.split(line .. ghost, '\n')
      wait_for_line(editor, accepted[#accepted])
    end),
  },
  {
    'text that contradicts the ghost removes it from the screen',
    in_editor(function(editor)
      local ghost = editor:wait_for_ghost(nil, answer_seconds)
      editor:press('0')
      editor:wait('the ghost disappearing', function()
        return editor:look().ghost ~= ghost:sub(2)
      end, 5)
      harness.equal(current_line(editor), line .. '0', 'the line')
    end),
  },
  {
    'the server ends with the editor',
    function()
      local editor = harness.start(folder)
      editor:lua([[require('nanochat').setup({ cmd = { ... } })]], server)
      editor:open('src/typed.rs', 60)
      -- The server is the only child of the editor.
      local pid = editor:lua('return vim.api.nvim_get_proc_children(vim.fn.getpid())[1]')
      assert(pid, 'no server process')
      editor:stop()
      assert(vim.wait(5000, function()
        return vim.api.nvim_get_proc(pid) == nil
      end, 50), ('process %d is still there'):format(pid))
    end,
  },
}, arg[3])
