--- `:checkhealth nanochat`: checks each requirement, in the order in which they matter.

local M = {}

--- Reports the state of the server in its own words. A server without the status command is not asked.
---@param client vim.lsp.Client
local function report_status(client)
  local commands = vim.tbl_get(client, 'server_capabilities', 'executeCommandProvider', 'commands') or {}
  if not vim.list_contains(commands, 'nanochat.status') then
    return
  end
  local response = client:request_sync('workspace/executeCommand', { command = 'nanochat.status' }, 2000)
  local status = response and response.result
  if type(status) ~= 'table' then
    vim.health.error('the server did not report its status within two seconds', 'restart it with `:lsp restart nanochat`')
  elseif status.state == 'silent' then
    vim.health.warn(('no completions: %s'):format(status.reason))
  else
    vim.health.ok(('state: %s'):format(status.state))
  end
end

function M.check()
  local health = vim.health
  local nanochat = require('nanochat')
  health.start('nanochat')

  local version = tostring(vim.version())
  if vim.fn.has('nvim-0.12') == 0 then
    health.error(('Neovim %s does not support inline completion'):format(version), 'install Neovim 0.12 or later')
    return
  end
  health.ok(('Neovim %s supports inline completion'):format(version))

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
    health.error(('`%s` is not executable'):format(command[1]), 'correct `cmd` in setup()')
    return
  end
  health.ok(('server: %s (%s)'):format(table.concat(command, ' '), path))

  local clients = vim.lsp.get_clients({ name = 'nanochat' })
  if #clients == 0 then
    health.info('no server is running; one starts when you open a Rust file in a cargo workspace')
  end
  for _, client in ipairs(clients) do
    local where = client.root_dir or 'no folder'
    local info = client.server_info or {}
    local what = ('%s %s'):format(info.name or 'server', info.version or '')
    if client:supports_method('textDocument/inlineCompletion') then
      health.ok(('%s is running for %s, with %s positions'):format(vim.trim(what), where, client.offset_encoding))
      report_status(client)
    else
      health.error(('%s for %s does not support inline completion'):format(vim.trim(what), where), 'update the server')
    end
  end

  local accept = options.keymap and options.keymap.accept
  if not accept then
    health.info('no key is mapped to accept completions; see :help nanochat-keys')
    return
  end
  local under = vim.iter(vim.api.nvim_get_keymap('i')):find(function(map)
    return map.lhs:lower() == accept:lower()
  end)
  local then_what = under and ('otherwise runs your mapping "%s"'):format(under.desc or under.rhs or 'a Lua function')
    or 'otherwise does what it does by default'
  health.ok(('%s accepts a visible completion and %s'):format(accept, then_what))
end

return M
