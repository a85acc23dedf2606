--- The behaviour of the plugin, against the scripted server in server.lua.

package.path = vim.fs.dirname(vim.fn.fnamemodify(arg[0], ':p')) .. '/?.lua;' .. package.path
local harness = require('harness')

--- A test with an editor that has called setup() and is in insert mode in a Rust file.
local function in_editor(options, body)
  return function()
    local editor = harness.start()
    local journal = vim.fn.tempname()
    local ok, problem = xpcall(function()
      editor.journal = journal
      if options.before then
        editor:lua(options.before)
      end
      local setup = options.setup or {}
      setup.cmd = vim.list_extend(vim.deepcopy(harness.server_command), { journal })
      editor:lua([[require('nanochat').setup(...)]], setup)
      editor:open('src/main.rs')
      if options.after then
        editor:lua(options.after)
      end
      editor:press('i')
      body(editor)
    end, debug.traceback)
    editor:stop()
    vim.fn.delete(journal)
    assert(ok, problem)
  end
end

local function journal_of(editor)
  local file = io.open(editor.journal)
  local text = file and file:read('*a') or ''
  if file then
    file:close()
  end
  return text
end

local tests = {}
local function test(name, ...)
  table.insert(tests, { name, select('#', ...) == 2 and in_editor(...) or ... })
end

test('a ghost is shown and tab accepts it', {}, function(editor)
  editor:press('let total = ')
  editor:wait_for_ghost('compute_total(items);')
  local screen = editor:look().screen
  assert(screen:find('let total = compute_total(items);', 1, true), 'not on the screen:\n' .. screen)
  editor:press('<Tab>')
  editor:wait_for_text('let total = compute_total(items);')
  harness.equal(editor:look().cursor, { 1, #'let total = compute_total(items);' }, 'cursor')
  editor:wait('the accept command', function()
    return journal_of(editor) == 'accepted ["let total = "]\n'
  end)
  harness.equal(editor:look().messages, {}, 'messages')
end)

test('text typed before the key is not repeated on accept', {}, function(editor)
  editor:press('let total = ')
  editor:wait_for_ghost('compute_total(items);')
  editor:press('comp<Tab>')
  editor:wait_for_text('let total = compute_total(items);')
end)

test('typed text is not repeated after the ghost was redrawn in between', {}, function(editor)
  editor:press('let total = ')
  editor:wait_for_ghost('compute_total(items);')
  editor:press('c')
  editor:wait_for_ghost('ompute_total(items);')
  editor:press('om')
  editor:press('p<Tab>')
  editor:wait_for_text('let total = compute_total(items);')
end)

test('a completion whose range starts before the cursor replaces what it repeats', {}, function(editor)
  editor:press('let healed = com')
  editor:wait_for_ghost('pute_total(items);')
  editor:press('p<Tab>')
  editor:wait_for_text('let healed = compute_total(items);')
end)

test('characters of several bytes before the cursor do not shift the completion', {}, function(editor)
  editor:press('/* größe */ let total = ')
  editor:wait_for_ghost('compute_total(items);')
  editor:press('comp<Tab>')
  editor:wait_for_text('/* größe */ let total = compute_total(items);')
end)

test('keys after the accepting key are inserted after the completion', {}, function(editor)
  editor:press('let total = ')
  editor:wait_for_ghost('compute_total(items);')
  editor:press('comp<Tab> // sum')
  editor:wait_for_text('let total = compute_total(items); // sum')
end)

test('typed text is not repeated even without access to Neovim internals', {
  after = 'vim.lsp._capability = {}',
}, function(editor)
  editor:press('let total = ')
  editor:wait_for_ghost('compute_total(items);')
  editor:press('comp<Tab>')
  editor:wait_for_text('let total = compute_total(items);')
end)

test('a ghost of several lines is accepted as a whole', {}, function(editor)
  editor:press('fn main() ')
  editor:wait_for_ghost('{\n    run();\n}')
  editor:press('{<Tab>')
  editor:wait_for_text('fn main() {\n    run();\n}')
  harness.equal(editor:look().cursor, { 3, 1 }, 'cursor')
end)

test('a ghost of several lines can be typed into its second line', {}, function(editor)
  editor:press('fn main() ')
  editor:wait_for_ghost('{\n    run();\n}')
  editor:press('{<CR>ru<Tab>')
  editor:wait_for_text('fn main() {\n    run();\n}')
end)

test('typing something else hides the ghost and tab is a tab again', {}, function(editor)
  editor:press('let total = ')
  editor:wait_for_ghost('compute_total(items);')
  editor:press('x')
  editor:wait('the ghost hiding', function()
    return not editor:look().ghost
  end)
  editor:press('<Tab>|')
  editor:wait_for_text('let total = x   |')
end)

test('a burst of other keys and tab inserts nothing of the ghost', {}, function(editor)
  editor:press('let total = ')
  editor:wait_for_ghost('compute_total(items);')
  editor:press('xyz<Tab>')
  editor:wait_for_text('let total = xyz ')
  editor:settle()
  harness.equal(editor:text(), 'let total = xyz ', 'text')
end)

test('deleting back over the start of the ghost hides it', {}, function(editor)
  editor:press('let total = ')
  editor:wait_for_ghost('compute_total(items);')
  editor:press('<BS>')
  editor:wait('the ghost hiding', function()
    return not editor:look().ghost
  end)
  harness.equal(editor:text(), 'let total =', 'text')
end)

test('tab without a ghost is a tab', { after = 'vim.bo.expandtab = false vim.bo.softtabstop = 0' }, function(editor)
  editor:press('a<Tab>b')
  editor:wait_for_text('a\tb')
end)

for kind, before in vim.spairs({
  ['a string'] = [[vim.keymap.set('i', '<Tab>', '<lt>tab>', { remap = false })]],
  ['an expression'] = [[vim.keymap.set('i', '<Tab>', function() return '<lt>tab>' end, { expr = true })]],
  ['a Lua function'] = [[vim.keymap.set('i', '<Tab>', function() vim.api.nvim_put({ '<tab>' }, 'c', false, true) end)]],
  ['a Vim expression'] = [[vim.cmd([=[inoremap <expr> <Tab> '<lt>tab>']=])]],
  ['a mapping onto itself'] = [[vim.cmd([=[imap <Tab> <Tab>x]=]) vim.cmd([=[autocmd FileType rust set expandtab shiftwidth=4 softtabstop=0]=]) vim.o.tabstop = 4]],
}) do
  local expected = kind == 'a mapping onto itself' and 'a   x' or 'a<tab>'
  test('tab without a ghost does what it was mapped to: ' .. kind, { before = before }, function(editor)
    editor:press('a<Tab>')
    editor:wait_for_text(expected)
  end)
end

test('a buffer-local mapping is the fallback and is restored on detach', {
  before = [[vim.api.nvim_create_autocmd('FileType', { pattern = 'rust', callback = function()
    vim.keymap.set('i', '<Tab>', '<lt>mine>', { buffer = 0 })
  end })]],
}, function(editor)
  editor:press('<Tab>')
  editor:wait_for_text('<mine>')
  editor:press(' let total = ')
  editor:wait_for_ghost('compute_total(items);')
  editor:press('<Tab>')
  editor:wait_for_text('<mine> let total = compute_total(items);')
  editor:lua([[vim.lsp.enable('nanochat', false)]])
  editor:wait('the mapping being restored', function()
    return editor:lua([[return vim.fn.maparg('<Tab>', 'i', false, true).rhs]]) == '<lt>mine>'
  end)
end)

test('tab belongs to an open popup menu', {}, function(editor)
  editor:press('let total = ')
  editor:wait_for_ghost('compute_total(items);')
  editor:lua([[vim.keymap.set('i', '<Tab>', function() return vim.fn.pumvisible() == 1 and '<C-N>' or '<Tab>' end, { expr = true })
    vim.o.completeopt = 'menuone,noinsert'
    vim.fn.complete(vim.fn.col('.'), { 'first', 'second' })]])
  editor:wait('the menu', function()
    return editor:lua('return vim.fn.pumvisible()') == 1
  end)
  editor:press('<Tab>')
  editor:wait_for_text('let total = second')
end)

test('keymap = false leaves every key alone', { setup = { keymap = false } }, function(editor)
  editor:press('let total = ')
  editor:wait_for_ghost('compute_total(items);')
  harness.equal(editor:lua([[return #vim.tbl_filter(function(map)
    return (map.desc or ''):find('nanochat') ~= nil
  end, vim.api.nvim_buf_get_keymap(0, 'i'))]]), 0, 'mappings')
end)

test('words and lines can be accepted one at a time', {
  setup = { keymap = { accept_word = '<C-F>', accept_line = '<C-L>', dismiss = '<C-G>' } },
}, function(editor)
  editor:press('let total = ')
  editor:wait_for_ghost('compute_total(items);')
  editor:press('co<C-F>')
  editor:wait_for_text('let total = compute_total')
  editor:wait_for_ghost('(items);')
  editor:press('<C-F>')
  editor:wait_for_text('let total = compute_total(')
  harness.equal(journal_of(editor), '', 'accept commands')
  editor:wait_for_ghost('items);')
  editor:press('<C-G>')
  editor:wait('the ghost hiding', function()
    return not editor:look().ghost
  end)
  editor:press('<Esc>ddifn main() ')
  editor:wait_for_ghost('{\n    run();\n}')
  editor:press('<C-L>')
  editor:wait_for_text('fn main() {')
end)

test('settings are sent in initialize and as a change', { setup = { settings = { maxLines = 3 } } }, function(editor)
  editor:wait('the settings arriving', function()
    return journal_of(editor) == 'initialize {"maxLines":3}\nsettings {"nanochat":{"maxLines":3}}\n'
  end)
end)

test('an old Neovim gets one warning and nothing else happens', function()
  local editor = harness.start()
  editor:lua([[
    local has = vim.fn.has
    vim.fn.has = function(feature) return feature == 'nvim-0.12' and 0 or has(feature) end
    require('nanochat').setup({})
    vim.cmd.edit('src/main.rs')
  ]])
  editor:press('ilet total = ')
  editor:settle()
  local seen = editor:look()
  editor:stop()
  harness.equal(#seen.messages, 1, 'messages')
  assert(seen.messages[1].text:find('inline completion needs Neovim 0.12 or later', 1, true), seen.messages[1].text)
  harness.equal(seen.lines, { 'let total = ' }, 'text')
end)

test('a missing server is reported once, at setup', function()
  local editor = harness.start()
  editor:lua([[
    vim.env.PATH = vim.fn.tempname()
    require('nanochat').setup()
    vim.cmd.edit('src/main.rs')
  ]])
  editor:press('ilet total = ')
  editor:settle()
  local seen = editor:look()
  editor:stop()
  harness.equal(#seen.messages, 1, 'messages')
  assert(seen.messages[1].text:find('neither `nanochat-lsp` nor `cargo-nanochat` is on PATH', 1, true), seen.messages[1].text)
end)

test('cargo-nanochat is the server if nanochat-lsp is not installed', function()
  local editor = harness.start()
  local command = editor:lua([[
    local bin = vim.fn.tempname()
    vim.fn.mkdir(bin)
    for _, name in ipairs({ 'cargo-nanochat', ... }) do
      vim.fn.writefile({ '#!/bin/sh' }, bin .. '/' .. name)
      vim.uv.fs_chmod(bin .. '/' .. name, tonumber('755', 8))
    end
    vim.env.PATH = bin
    return require('nanochat').command({})
  ]])
  editor:stop()
  harness.equal(command, { 'cargo-nanochat', 'lsp' }, 'command')
end)

test('an unknown option is an error', function()
  local editor = harness.start()
  local ok, problem = unpack(editor:lua([[return { pcall(require('nanochat').setup, { command = {} }) }]]))
  editor:stop()
  harness.equal(ok, false, 'success')
  assert(problem:find('unknown option `command` in setup()', 1, true), problem)
end)

test('the root of a member is its workspace, and sources unpacked by cargo have none', function()
  local editor = harness.start()
  local folder = editor.folder
  harness.write(folder .. '/ws/Cargo.toml', '[workspace]\nmembers = ["a"]\n')
  harness.write(folder .. '/ws/a/Cargo.toml', '[package]\nname = "a"\n')
  local roots = editor:lua([[
    local folder = ...
    vim.env.CARGO_HOME = folder .. '/home'
    local root = require('nanochat').root
    return {
      root(folder .. '/ws/a/src/lib.rs'),
      root(folder .. '/src/main.rs'),
      root(folder .. '/home/registry/src/index/b-1.0.0/src/lib.rs') or 'none',
      root('/x.rs') or 'none',
    }
  ]], folder)
  editor:stop()
  harness.equal(roots, { folder .. '/ws', folder, 'none', 'none' }, 'roots')
end)

test('checkhealth reports the server, its state and the key', {}, function(editor)
  editor:press('<Esc>')
  editor:lua([[vim.cmd.checkhealth('nanochat')]])
  local report = editor:text()
  editor:lua([[vim.cmd.bdelete({ bang = true })]])
  for _, expected in ipairs({ 'supports inline completion', 'scripted 1 is running for', 'utf-8 positions', 'no completions: it is scripted', '<Tab> accepts' }) do
    assert(report:find(expected, 1, true), ('no %q in:\n%s'):format(expected, report))
  end
  assert(not report:find('ERROR', 1, true), report)
end)

test('the help file has its tags', function()
  local editor = harness.start()
  local topics = editor:lua([[
    local copy = vim.fn.tempname()
    vim.fn.mkdir(copy .. '/doc', 'p')
    vim.uv.fs_copyfile(... .. '/doc/nanochat.txt', copy .. '/doc/nanochat.txt')
    vim.cmd.helptags(copy .. '/doc')
    vim.opt.runtimepath:append(copy)
    return vim.fn.getcompletion('nanochat-', 'help')
  ]], harness.plugin_folder)
  editor:stop()
  table.sort(topics)
  harness.equal(topics, {
    'nanochat-behaviour', 'nanochat-installation', 'nanochat-keys', 'nanochat-requirements', 'nanochat-settings',
    'nanochat-setup',
  }, 'help topics')
end)

harness.run(tests, arg[1])
