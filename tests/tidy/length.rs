//! Files are short, or say why they are not.

use std::path::Path;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, Item, Lit, Meta};

use super::modules::{attributes, is_test};
use super::rust_files;
use crate::support::repository;

/// Lines that a file may have without a reason, those of tests not counted.
const LIMIT: usize = 600;
/// The sentence that states the reason, in the file's `//!`.
const REASON: &str = "Longer than 600 lines because";

#[test]
fn files_are_short_or_say_why_not() {
    for path in rust_files(&repository()).into_iter().filter(|path| !is_of_tests(path)) {
        let text = std::fs::read_to_string(&path).expect("sources are UTF-8");
        let (n_lines, has_reason) = measured(&text);
        assert!(n_lines <= LIMIT || has_reason, "{}: {n_lines} lines, and no `{REASON}` in its `//!`", path.display());
    }
}

#[test]
fn lines_of_tests_are_not_counted_and_a_reason_may_be_wrapped() {
    let text = "//! A file. Longer than 600\n//! lines because it is a table.\n\nfn f() {}\n\n\
                #[cfg(test)]\nmod tests {\n}\n\n\
                impl A {\n    #[cfg(test)]\n    fn g() {\n    }\n}\n";
    assert_eq!(measured(text), (8, true));
    assert_eq!(measured("fn f() {}\n"), (1, false));
}

/// Integration tests, and files that are the tests of another.
fn is_of_tests(path: &Path) -> bool {
    let path = path.strip_prefix(repository()).expect("it is in the repository");
    path.iter().any(|part| part == "tests" || part == "tests.rs")
}

/// The lines of a file without those of tests, and whether it gives a reason for being long.
fn measured(text: &str) -> (usize, bool) {
    let file = syn::parse_file(text).expect("it compiles");
    let mut tests = Tests::default();
    tests.visit_file(&file);
    let doc: Vec<String> = file.attrs.iter().filter_map(doc).collect();
    let doc: Vec<&str> = doc.iter().flat_map(|line| line.split_whitespace()).collect();
    (text.lines().count() - tests.n_lines, doc.join(" ").contains(REASON))
}

/// The text of `//! …`.
fn doc(attribute: &Attribute) -> Option<String> {
    let Meta::NameValue(doc) = &attribute.meta else { return None };
    match &doc.value {
        Expr::Lit(literal) if doc.path.is_ident("doc") => match &literal.lit {
            Lit::Str(text) => Some(text.value()),
            _ => None,
        },
        _ => None,
    }
}

/// Counts the lines of what is built for tests only.
#[derive(Debug, Default)]
struct Tests {
    n_lines: usize,
}

impl Tests {
    fn add(&mut self, what: &impl Spanned) {
        let span = what.span();
        self.n_lines += span.end().line + 1 - span.start().line;
    }
}

impl<'a> Visit<'a> for Tests {
    fn visit_item(&mut self, item: &'a Item) {
        if is_test(attributes(item)) { self.add(item) } else { visit::visit_item(self, item) }
    }

    fn visit_impl_item_fn(&mut self, function: &'a syn::ImplItemFn) {
        if is_test(&function.attrs) { self.add(function) } else { visit::visit_impl_item_fn(self, function) }
    }
}
