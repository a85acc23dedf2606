--- The completion on the screen: whether it is visible, whether it still fits, and how to accept all or part of it.
---
--- Neovim draws the ghost text; this file accepts it, because `vim.lsp.inline_completion.get` alone inserts the
--- completion *before* what was typed since the request (neovim#36529) and thereby repeats it.

local M = {}

local namespace = vim.api.nvim_create_namespace('nvim.lsp.inline_completion')

--- Whether ghost text is visible in the buffer.
---@param bufnr integer
---@return boolean
function M.is_shown(bufnr)
  local marks = vim.api.nvim_buf_get_extmarks(bufnr, namespace, 0, -1, { details = true })
  return vim.iter(marks):any(function(mark)
    local details = mark[4]
    local first = details.virt_text and details.virt_text[1] and details.virt_text[1][1] or ''
    return first ~= '' or #(details.virt_lines or {}) > 0
  end)
end

--- The text between the start of the completion and the cursor, which the completion has to start with. The server's
--- range ends where the cursor was at the request; the rest was typed since.
---@param bufnr integer
---@param item vim.lsp.inline_completion.Item
---@return { row: integer, col: integer, typed: string }? nil if the completion no longer fits the buffer
local function fit(bufnr, item)
  local cursor = vim.api.nvim_win_get_cursor(0)
  local end_row, end_col = cursor[1] - 1, cursor[2]
  local row, col = end_row, end_col
  if item.range then
    row, col = item.range:to_extmark()
  end
  if row > end_row or (row == end_row and col > end_col) then
    return nil
  end
  local ok, lines = pcall(vim.api.nvim_buf_get_text, bufnr, row, col, end_row, end_col, {})
  local typed = ok and table.concat(lines, '\n')
  if typed and #typed < #item.insert_text and vim.startswith(item.insert_text, typed) then
    return { row = row, col = col, typed = typed }
  end
end

--- The leading part of `text` that a key accepts.
---@param text string
---@param part 'all'|'word'|'line'
---@return string
local function leading(text, part)
  if part == 'word' then
    -- White space and one identifier, or white space and one run of punctuation. Bytes from 0x80 are part of letters.
    return text:match('^%s*[%w_\128-\255]+') or text:match('^%s*[^%w_%s\128-\255]+') or text
  elseif part == 'line' then
    return text:match('^\n?[^\n]*')
  end
  return text
end

---@param bufnr integer
---@param item vim.lsp.inline_completion.Item
---@param start { row: integer, col: integer, typed: string }
---@param part 'all'|'word'|'line'
local function insert(bufnr, item, start, part)
  local rest = item.insert_text:sub(#start.typed + 1)
  local taken = leading(rest, part)
  local lines = vim.split(start.typed .. taken, '\n', { plain = true })
  local cursor = vim.api.nvim_win_get_cursor(0)
  -- The replaced range includes what was typed, so that it does not appear twice.
  vim.api.nvim_buf_set_text(bufnr, start.row, start.col, cursor[1] - 1, cursor[2], lines)
  local last = start.row + #lines
  vim.api.nvim_win_set_cursor(0, { last, (#lines == 1 and start.col or 0) + #lines[#lines] })
  -- The command tells the server that the completion was accepted; a part of one is not reported.
  local client = vim.lsp.get_client_by_id(item.client_id)
  if item.command and client and taken == rest then
    client:exec_cmd(item.command, { bufnr = bufnr })
  end
end

--- Neovim's own record of the buffer's completion. There is no public way to read it without accepting it, and
--- `vim.lsp.inline_completion.get` accepts only in a later tick, after keys that are already in the queue. If a future
--- Neovim keeps it elsewhere, this is nil: `accept` then uses the public function, and a stale ghost stays until the
--- next response.
---@param bufnr integer
---@return vim.lsp.inline_completion.Completor?
local function completor(bufnr)
  return vim.tbl_get(vim.lsp, '_capability', 'all', 'inline_completion', 'active', bufnr)
end

--- Accepts the visible completion, or a leading part of it.
---@param bufnr integer
---@param part 'all'|'word'|'line'
---@return boolean accepted false if no completion is visible, or it contradicts what was typed
function M.accept(bufnr, part)
  if not M.is_shown(bufnr) then
    return false
  end
  local current = completor(bufnr)
  local item = current and current.current
  if item and type(item.insert_text) == 'string' then
    local start = fit(bufnr, item)
    if not start then
      return false
    end
    current:abort()
    insert(bufnr, item, start, part)
    return true
  end
  return vim.lsp.inline_completion.get({
    bufnr = bufnr,
    on_accept = function(accepted)
      if type(accepted.insert_text) ~= 'string' then
        return accepted -- a snippet: Neovim expands it
      end
      local start = fit(bufnr, accepted)
      if start then
        insert(bufnr, accepted, start, part)
      end
    end,
  })
end

--- Hides the visible completion.
---@param bufnr integer
---@return boolean hidden false if none was visible
function M.dismiss(bufnr)
  if not M.is_shown(bufnr) then
    return false
  end
  return vim.lsp.inline_completion.get({ bufnr = bufnr, on_accept = function() end })
end

--- Hides a completion as soon as the typed text contradicts it. Neovim alone keeps it on the screen until the next
--- response, and cuts off as many characters as were typed, whatever they were.
---@param bufnr integer
---@param group integer
function M.hide_when_stale(bufnr, group)
  vim.api.nvim_clear_autocmds({ group = group, buffer = bufnr })
  vim.api.nvim_create_autocmd('CursorMovedI', {
    group = group,
    buffer = bufnr,
    desc = 'nanochat: hide what no longer fits',
    callback = function()
      local current = completor(bufnr)
      local item = current and current.current
      if item and type(item.insert_text) == 'string' and not fit(bufnr, item) then
        current.current = nil
        vim.api.nvim_buf_clear_namespace(bufnr, namespace, 0, -1)
      end
    end,
  })
end

return M
