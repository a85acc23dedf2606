--- Starts the nanochat language server for Rust buffers and shows its inline completions.
---
--- setup → vim.lsp.config/enable → LspAttach → ghost text (Neovim's own) → key → `nanochat.ghost`.
--- This file has the configuration and decides when to start; `nanochat.ghost` handles the text on the screen, and
--- `nanochat.keymap` what a key did before. The user's guide is `:help nanochat`.

local M = {}

---@class nanochat.Keymap
---@field accept string|false key that accepts the whole completion
---@field accept_word string|false key that accepts its next word
---@field accept_line string|false key that accepts its next line
---@field dismiss string|false key that hides it

---@class nanochat.Options
---@field cmd? string[] the server's command line; found on PATH by default
---@field keymap? nanochat.Keymap|false insert-mode keys; false maps nothing
---@field settings? table sent to the server as its `nanochat` settings

---@type nanochat.Options
local defaults = {
  cmd = nil,
  keymap = { accept = '<Tab>', accept_word = false, accept_line = false, dismiss = false },
  settings = {},
}

--- The result of `setup`, for `:checkhealth nanochat` and the tests.
---@type { options?: nanochat.Options, problem?: string }
M.state = {}

--- Reports what prevents the plugin from working: once, at setup, and never while typing.
local function refuse(problem)
  M.state.problem = problem
  vim.notify('nanochat: ' .. problem, vim.log.levels.WARN)
end

--- The command line of the server, or nil when neither binary is on PATH.
---@param options nanochat.Options
---@return string[]?
function M.command(options)
  if options.cmd then
    return options.cmd
  elseif vim.fn.executable('nanochat-lsp') == 1 then
    return { 'nanochat-lsp' }
  elseif vim.fn.executable('cargo-nanochat') == 1 then
    return { 'cargo-nanochat', 'lsp' }
  end
end

--- Whether `file` is a source that cargo or rustup unpacked. Users only read those, so they do not start a server.
---@param file string
local function is_unpacked_by_cargo(file)
  local homes = {
    { vim.env.CARGO_HOME or vim.fs.joinpath(vim.uv.os_homedir(), '.cargo'), 'registry' },
    { vim.env.CARGO_HOME or vim.fs.joinpath(vim.uv.os_homedir(), '.cargo'), 'git' },
    { vim.env.RUSTUP_HOME or vim.fs.joinpath(vim.uv.os_homedir(), '.rustup'), 'toolchains' },
  }
  return vim.iter(homes):any(function(home)
    return vim.fs.relpath(vim.fs.joinpath(home[1], home[2]), file) ~= nil
  end)
end

--- The folder of the workspace that `file` belongs to: the nearest manifest with a `[workspace]` table at or above
--- it, or else the nearest manifest. One server serves all members.
---@param file string
---@return string?
function M.root(file)
  if file == '' or is_unpacked_by_cargo(file) then
    return nil
  end
  local manifests = vim.fs.find('Cargo.toml', { path = vim.fs.dirname(file), upward = true, type = 'file', limit = math.huge })
  for _, manifest in ipairs(manifests) do
    local lines = io.lines(manifest)
    for line in lines do
      if line:match('^%s*%[workspace[%].]') then
        return vim.fs.dirname(manifest)
      end
    end
  end
  return manifests[1] and vim.fs.dirname(manifests[1])
end

---@param options nanochat.Options
---@param bufnr integer
local function map_keys(options, bufnr)
  if not options.keymap then
    return
  end
  local ghost, keymap = require('nanochat.ghost'), require('nanochat.keymap')
  local actions = { accept = 'all', accept_word = 'word', accept_line = 'line' }
  for name, part in pairs(actions) do
    keymap.layer(bufnr, options.keymap[name], 'nanochat: ' .. name, function()
      return ghost.accept(bufnr, part)
    end)
  end
  keymap.layer(bufnr, options.keymap.dismiss, 'nanochat: dismiss', function()
    return ghost.dismiss(bufnr)
  end)
end

--- Configures the server, enables it for Rust buffers and maps the keys. Call it once, from init.lua.
---@param options? nanochat.Options
function M.setup(options)
  options = options or {}
  vim.validate('options', options, 'table')
  for key in pairs(options) do
    if not vim.list_contains({ 'cmd', 'keymap', 'settings' }, key) then
      error(('nanochat: unknown option `%s` in setup(); see :help nanochat-setup'):format(key), 2)
    end
  end
  vim.validate('cmd', options.cmd, 'table', true)
  vim.validate('settings', options.settings, 'table', true)
  vim.validate('keymap', options.keymap, function(keymap)
    return keymap == nil or keymap == false or type(keymap) == 'table'
  end, 'a table or false')

  M.state = {}
  if vim.fn.has('nvim-0.12') == 0 or not vim.lsp.inline_completion then
    return refuse(('inline completion needs Neovim 0.12 or later; this is %s'):format(tostring(vim.version())))
  end
  options = vim.tbl_deep_extend('force', defaults, options)
  M.state.options = options

  local command = M.command(options)
  if not command then
    return refuse('neither `nanochat-lsp` nor `cargo-nanochat` is on PATH; install one of them, or pass `cmd` to setup()')
  elseif vim.fn.executable(command[1]) == 0 then
    return refuse(('`%s` is not executable; correct `cmd` in setup()'):format(command[1]))
  end

  vim.lsp.config('nanochat', {
    cmd = command,
    filetypes = { 'rust' },
    root_dir = function(bufnr, on_dir)
      local root = M.root(vim.api.nvim_buf_get_name(bufnr))
      if root then
        on_dir(root)
      end
    end,
    -- An empty table would be sent as a list.
    settings = next(options.settings) and { nanochat = options.settings } or nil,
    init_options = next(options.settings) and options.settings or nil,
  })

  local group = vim.api.nvim_create_augroup('nanochat', { clear = true })
  vim.api.nvim_create_autocmd('LspAttach', {
    group = group,
    desc = 'nanochat: ghost text and keys',
    callback = function(event)
      local client = vim.lsp.get_client_by_id(event.data.client_id)
      if not client or client.name ~= 'nanochat' then
        return
      end
      -- Per buffer, as toggles are: they would not see a client that is enabled in another way.
      vim.lsp.inline_completion.enable(true, { bufnr = event.buf })
      map_keys(options, event.buf)
      -- Neovim creates its own autocommands in the tick after this event; ours must run after them.
      vim.schedule(function()
        require('nanochat.ghost').hide_when_stale(event.buf, group)
      end)
    end,
  })
  vim.api.nvim_create_autocmd('LspDetach', {
    group = group,
    desc = 'nanochat: restore the keys',
    callback = function(event)
      local client = vim.lsp.get_client_by_id(event.data.client_id)
      if client and client.name == 'nanochat' then
        require('nanochat.keymap').restore(event.buf)
      end
    end,
  })
  vim.lsp.enable('nanochat')
end

return M
