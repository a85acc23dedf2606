//! Byte ranges of functions, blocks, statements and expressions in the parsed code.

use std::ops::Range;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// The ranges that a visit of the file collects.
#[derive(Default)]
pub(super) struct Bodies {
    /// Outermost functions, from their attributes to their closing brace.
    pub(super) functions: Vec<Range<usize>>,
    /// Insides of functions, between the braces.
    pub(super) bodies: Vec<Range<usize>>,
    /// From the first to the last statement of a function.
    pub(super) filled_bodies: Vec<Range<usize>>,
    /// From the first to the last statement of any other block.
    pub(super) blocks: Vec<Range<usize>>,
    /// Whole statements in functions, items not counted.
    pub(super) statements: Vec<Range<usize>>,
    /// Expressions that are neither a statement nor a literal.
    pub(super) expressions: Vec<Range<usize>>,
    /// Conditional code, which the compiler may not see.
    pub(super) hidden: Vec<Range<usize>>,
    depth: usize,
}

impl Bodies {
    /// Marks the node as hidden if an attribute makes it conditional.
    fn hide(&mut self, attrs: &[syn::Attribute], node: &impl Spanned) -> bool {
        let conditional = attrs.iter().any(|attr| {
            attr.path().segments.last().is_some_and(|s| s.ident == "cfg" || s.ident == "cfg_attr" || s.ident == "test")
        });
        if conditional {
            self.hidden.push(node.span().byte_range());
        }
        conditional
    }

    fn body(&mut self, function: &impl Spanned, block: &syn::Block, visit: impl FnOnce(&mut Self)) {
        if self.depth == 0 {
            self.functions.push(function.span().byte_range());
        }
        self.bodies
            .push(block.brace_token.span.open().byte_range().end..block.brace_token.span.close().byte_range().start);
        self.filled_bodies.extend(inside(block));
        self.depth += 1;
        visit(self);
        self.depth -= 1;
    }
}

fn inside(block: &syn::Block) -> Option<Range<usize>> {
    let (first, last) = (block.stmts.first()?, block.stmts.last()?);
    Some(first.span().byte_range().start..last.span().byte_range().end)
}

impl<'ast> Visit<'ast> for Bodies {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        use syn::Item;
        let attrs: &[syn::Attribute] = match item {
            Item::Const(item) => &item.attrs,
            Item::Enum(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Static(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Trait(item) => &item.attrs,
            _ => return, // nothing else holds a function body that is not a macro's
        };
        if !self.hide(attrs, item) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.body(item, &item.block, |this| {
            for statement in &item.block.stmts {
                this.visit_stmt(statement);
            }
        });
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !self.hide(&item.attrs, item) {
            self.body(item, &item.block, |this| {
                for statement in &item.block.stmts {
                    this.visit_stmt(statement);
                }
            });
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        let Some(block) = &item.default else { return };
        if !self.hide(&item.attrs, item) {
            self.body(item, block, |this| {
                for statement in &block.stmts {
                    this.visit_stmt(statement);
                }
            });
        }
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        if !self.hide(&arm.attrs, arm) {
            visit::visit_arm(self, arm);
        }
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        if self.depth > 0 {
            self.blocks.extend(inside(block));
        }
        visit::visit_block(self, block);
    }

    fn visit_stmt(&mut self, statement: &'ast syn::Stmt) {
        let hidden = match statement {
            syn::Stmt::Local(local) => self.hide(&local.attrs, statement),
            syn::Stmt::Macro(call) => self.hide(&call.attrs, statement),
            syn::Stmt::Item(_) | syn::Stmt::Expr(..) => false,
        };
        if hidden {
            return;
        }
        if self.depth > 0 && !matches!(statement, syn::Stmt::Item(_)) {
            self.statements.push(statement.span().byte_range());
        }
        match statement {
            syn::Stmt::Expr(expr, _) => visit::visit_expr(self, expr), // itself it is a statement
            other => visit::visit_stmt(self, other),
        }
    }

    fn visit_expr(&mut self, expr: &'ast syn::Expr) {
        use syn::Expr;
        let is_simple = matches!(expr, Expr::Lit(_) | Expr::Block(_) | Expr::Let(_) | Expr::Assign(_));
        let leaves = matches!(expr, Expr::Return(_) | Expr::Break(_) | Expr::Continue(_));
        if self.depth > 0 && !is_simple && !leaves {
            self.expressions.push(expr.span().byte_range());
        }
        visit::visit_expr(self, expr);
    }
}
