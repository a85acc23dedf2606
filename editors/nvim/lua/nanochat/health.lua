--- `:checkhealth nanochat`: what is needed, in the order in which it is needed.

local M = {}

--- Says in the server's own words whether it answers. A server that does not know the question is not asked.
---@param client vim.lsp.Client
local function report_status(client)
  local commands = vim.tbl_get(client, 'server_capabilities', 'executeCommandProvider', 'commands') or {}
  if not vim.list_contains(commands, 'nanochat.status') then
    return
  end
  local response = client:request_sync('workspace/executeCommand', { command = 'nanochat.status' }, 2000)
  local status = response and response.result
  if type(status) ~= 'table' then
    vim.health.error('the server did not say how it is within two seconds', 'restart it with `:lsp restart nanochat`')
  elseif status.state == 'silent' then
    vim.health.warn(('it shows nothing: %s'):format(status.reason))
  else
    vim.health.ok(('it is %s'):format(status.state))
  end
end

function M.check()
  local health = vim.health
  local nanochat = require('nanochat')
  health.start('nanochat')

  local version = tostring(vim.version())
  if vim.fn.has('nvim-0.12') == 0 then
    health.error(('Neovim %s has no inline completion'):format(version), 'install Neovim 0.12 or later')
    return
  end
  health.ok(('Neovim %s has inline completion'):format(version))

  local options = nanochat.state.options
  if not options then
    health.error('setup() was not called', "add require('nanochat').setup() to init.lua")
    return
  end

  local command = nanochat.command(options)
  if not command then
    health.error(
      'neither `nanochat-lsp` nor `cargo-nanochat` is on PATH',
      'install one of them, or pass `cmd` to setup()'
    )
    return
  end
  local path = vim.fn.exepath(command[1])
  if path == '' then
    health.error(('`%s` cannot be run'):format(command[1]), 'correct `cmd` in setup()')
    return
  end
  health.ok(('server: %s (%s)'):format(table.concat(command, ' '), path))

  local clients = vim.lsp.get_clients({ name = 'nanochat' })
  if #clients == 0 then
    health.info('no server is running; it starts when a Rust file of a cargo workspace is opened')
  end
  for _, client in ipairs(clients) do
    local where = client.root_dir or 'no folder'
    local info = client.server_info or {}
    local what = ('%s %s'):format(info.name or 'server', info.version or '')
    if client:supports_method('textDocument/inlineCompletion') then
      health.ok(('%s serves %s, positions in %s'):format(vim.trim(what), where, client.offset_encoding))
      report_status(client)
    else
      health.error(('%s in %s does not announce inline completion'):format(vim.trim(what), where), 'update the server')
    end
  end

  local accept = options.keymap and options.keymap.accept
  if not accept then
    health.info('no key accepts completions; see :help nanochat-keys')
    return
  end
  local under = vim.iter(vim.api.nvim_get_keymap('i')):find(function(map)
    return map.lhs:lower() == accept:lower()
  end)
  local then_what = under and ('falls back to the mapping "%s"'):format(under.desc or under.rhs or 'of a Lua function')
    or 'otherwise inserts what the key inserts'
  health.ok(('%s accepts a visible completion and %s'):format(accept, then_what))
end

return M
