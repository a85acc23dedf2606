--- Keys that act on a visible completion and otherwise do what they did before.
---
--- Our mappings are buffer-local and cover the user's own, which are looked up when the key is pressed: they may be
--- global, buffer-local, a string, an expression or a Lua function, and may have been created after ours.

local M = {}

--- What our buffer-local mappings cover, by buffer and key; false is no mapping.
---@type table<integer, table<string, table|false>>
local covered = {}

---@param lhs string
local function normalised(lhs)
  return vim.api.nvim_replace_termcodes(lhs, true, true, true)
end

---@param maps table[]
---@param lhs string
local function find(maps, lhs)
  return vim.iter(maps):find(function(map)
    return normalised(map.lhs) == normalised(lhs)
  end)
end

---@param keys string with key codes already replaced
---@param remap boolean
local function feed(keys, remap)
  -- Ahead of what is still in the queue, as the key itself would have been.
  vim.api.nvim_feedkeys(keys, (remap and 'm' or 'n') .. 'i', false)
end

--- Does what the key would do without our mapping.
---@param bufnr integer
---@param lhs string
local function press_underlying(bufnr, lhs)
  local map = (covered[bufnr] or {})[lhs] or find(vim.api.nvim_get_keymap('i'), lhs)
  if not map then
    return feed(normalised(lhs), false)
  end
  local sid = ('<SNR>%d_'):format(map.sid or 0)
  if map.expr == 1 then
    local keys
    if map.callback then
      keys = map.callback() or ''
    else
      -- Vim replaces key codes in the expression when it is mapped; the listing shows it as it was written.
      keys = vim.api.nvim_eval(normalised((map.rhs:gsub('<SID>', sid))))
    end
    keys = tostring(keys)
    if map.replace_keycodes == 1 then
      keys = normalised(keys)
    end
    return feed(keys, map.noremap == 0 and not vim.startswith(keys, normalised(lhs)))
  elseif map.callback then
    map.callback()
    return
  end
  local keys = normalised((map.rhs or ''):gsub('<SID>', sid))
  -- As in Vim, a mapping that starts with its own key is not remapped: it would recurse for ever.
  feed(keys, map.noremap == 0 and not vim.startswith(keys, normalised(lhs)))
end

--- Maps `lhs` in the buffer to `action`, with what it did before as the fallback.
---@param bufnr integer
---@param lhs string|false|nil nothing is mapped without a key
---@param desc string
---@param action fun(): boolean false falls back to what the key did before
function M.layer(bufnr, lhs, desc, action)
  if not lhs then
    return
  end
  covered[bufnr] = covered[bufnr] or {}
  if covered[bufnr][lhs] == nil then
    covered[bufnr][lhs] = find(vim.api.nvim_buf_get_keymap(bufnr, 'i'), lhs) or false
  end
  vim.keymap.set('i', lhs, function()
    -- An open popup menu handles its own keys.
    if vim.fn.pumvisible() == 1 or not action() then
      press_underlying(bufnr, lhs)
    end
  end, { buffer = bufnr, desc = desc })
end

--- Removes our mappings from the buffer and restores what they covered.
---@param bufnr integer
function M.restore(bufnr)
  for lhs, map in pairs(covered[bufnr] or {}) do
    pcall(vim.keymap.del, 'i', lhs, { buffer = bufnr })
    if map and vim.api.nvim_buf_is_valid(bufnr) then
      vim.api.nvim_buf_call(bufnr, function()
        vim.fn.mapset('i', false, map)
      end)
    end
  end
  covered[bufnr] = nil
end

return M
