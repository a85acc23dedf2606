use proptest::prelude::*;

use super::*;

/// `$0` stands at the cursor.
fn at_cursor(text: &str) -> (&str, &str) {
    text.split_once("$0").expect("a cursor")
}

fn verdict(text: &str, completion: &str) -> Verdict {
    let (prefix, suffix) = at_cursor(text);
    check(prefix, completion, suffix)
}

fn trimmed<'a>(text: &str, completion: &'a str) -> &'a str {
    let (prefix, suffix) = at_cursor(text);
    Scanner::after(prefix).trim_overlap(completion, suffix)
}

#[test]
fn what_makes_a_file_is_complete() {
    for (text, completion) in [
        ("fn f() { $0 }", "g(1);"),
        ("fn f() { g($0", "1) }"),
        ("fn f() -> char { $0 }", "'('"),
        ("fn f<'a>(x: &$0 str) {}", "'a"),
        ("fn f() { let s = \"a$0\"; }", "b{("),
        ("fn f() { let s = $0; }", "r#\"}\"{\"#"),
        ("fn f() { let s = $0\"; }", "\"abc"),
        ("fn f() { $0 }", "/* ( /* [ */ */ // }\n"),
        ("$0", ""),
        ("fn f() { let r#type = $0; }", "b'\\''"),
    ] {
        assert_eq!(verdict(text, completion), Verdict::Complete, "{text} ← {completion}");
    }
}

#[test]
fn what_is_not_yet_a_file_is_partial() {
    for (text, completion) in [
        ("fn f() { $0 }", "let x ="),
        ("fn f() { $0", "g("),
        ("fn f() { $0 }", "if x {"),
        ("fn f() { let s = \"a$0", "bc"),
        ("fn f() { x ) $0 }", "y"),
    ] {
        assert_eq!(verdict(text, completion), Verdict::Partial, "{text} ← {completion}");
    }
}

#[test]
fn what_closes_or_opens_too_much_is_broken() {
    for (text, completion) in [
        ("fn f() { g($0); }", "]"),
        ("fn f() { $0 }", ")"),
        ("fn f() { g($0); }", "1)"),
        ("fn f() { $0 }\n", "let s = \"abc"),
        ("fn f() { $0 }\n", "let s = r#\"abc\""),
        ("fn f() { let s = \"a$0\"; }\n", "b\""),
        ("fn f() { $0 }\n", "/* abc"),
        ("fn f() { $0 }\n", "let c = '("),
        ("fn f() { $0 }\n", "let c = '"),
        ("$0", "}"),
    ] {
        assert_eq!(verdict(text, completion), Verdict::Broken, "{text} ← {completion}");
    }
}

#[test]
fn nesting_that_would_exhaust_the_parser_is_not_parsed() {
    let deep = ["(".repeat(100_000), "$0".to_owned(), ")".repeat(100_000)].concat();
    assert_eq!(verdict(&deep, " "), Verdict::Partial);
    for chain in ["!", "- ", "return ", "|a| ", "a = ", "if x {} else "] {
        let text = format!("fn f() {{ {}$0 {{}} }}", chain.repeat(70_000));
        assert_eq!(verdict(&text, " "), Verdict::Partial, "{chain}");
    }
}

#[test]
fn the_parser_has_the_stack_for_what_it_is_given() {
    for (chain, n) in [("!", 4000), ("&", 4000), ("- ", 2000), ("return ", 500), ("|a|", 1300), ("a=", 2000)] {
        let text = format!("fn f() {{ {}$0; }}", chain.repeat(n));
        assert_eq!(verdict(&text, "x"), Verdict::Complete, "{chain}");
    }
    let elses = format!("fn f() {{ {}$0 {{}} }}", "if x {} else ".repeat(1000));
    assert_eq!(verdict(&elses, ""), Verdict::Complete);
    let nested = ["fn f() { ", &"(".repeat(198), "$0", &")".repeat(198), " }"].concat();
    assert_eq!(verdict(&nested, "x"), Verdict::Complete);
}

#[test]
fn a_tail_that_already_follows_is_dropped() {
    for (text, completion, expected) in [
        ("g($0)", "bar)", "bar"),
        ("g($0);\n", "bar);", "bar"),
        ("$0)", "foo(bar)", "foo(bar"),
        ("let x = $0;\n", "1;", "1"),
        ("fn f() {\n    $0\n}\n", "g();\n}", "g();"),
        ("let x = $0 + last_term;\n", "a + last_term;", "a"),
        ("g($0)", "bar", "bar"),
    ] {
        assert_eq!(trimmed(text, completion), expected, "{text} ← {completion}");
    }
    assert_eq!(trim_overlap("foo(bar)", ")"), "foo(bar");
}

#[test]
fn a_closing_bracket_of_its_own_stays() {
    for (text, completion) in [
        ("x[$0]", "vec![1]"),
        ("f(g($0))", "h(1)"),
        ("{ $0 }", "if x { y }"),
        ("f($0, b)", "a"),
        ("let x = $0\nfoo", "f"),
        ("x($0", "y)"),
    ] {
        assert_eq!(trimmed(text, completion), completion, "{text}");
    }
}

#[test]
fn the_suffix_tells_which_brackets_it_closes() {
    let scanner = Scanner::after("fn f() { g(h(");
    assert_eq!(scanner.depth(), 4 - 1);
    assert_eq!(scanner.closed_by(")); }"), 3);
    assert_eq!(scanner.closed_by(") // ) }"), 1);
    assert_eq!(scanner.closed_by(""), 0);
}

#[test]
fn a_completion_knows_its_own_brackets() {
    let mut scanner = Scanner::after("fn f() { g(");
    scanner.feed("h(");
    assert_eq!((scanner.own_depth(), scanner.n_outer_closed()), (1, 0));
    scanner.feed("))");
    assert_eq!((scanner.own_depth(), scanner.n_outer_closed(), scanner.is_broken()), (0, 1, false));
    scanner.feed("(");
    assert_eq!((scanner.own_depth(), scanner.depth()), (1, 2));
    scanner.feed("]");
    assert!(scanner.is_broken());
}

#[test]
fn literals_and_comments_are_not_code() {
    for (text, in_code) in [
        ("\"a", false),
        ("\"a\\\"", false),
        ("\"a\\\\\"", true),
        ("r\"\\\"", true),
        ("br##\"\"#", false),
        ("br##\"\"##", true),
        ("bar\"", false),
        ("/* /* */", false),
        ("/*/", false),
        ("/**/", true),
        ("a / b", true),
        ("&'a str", true),
        ("'\"'", true),
        ("b'\"'", true),
        ("'é'", true),
        ("'\\u{7d}'", true),
        ("'a: loop { break 'a }", true),
        ("r#fn", true),
        ("// \"\n", true),
    ] {
        let scanner = Scanner::after(text);
        assert_eq!(scanner.in_code(), in_code, "{text}");
    }
    assert!(Scanner::after("x // (").in_comment());
    assert_eq!(Scanner::after("'(' '\\u{7b}' \"(\" r#\"(\"# /* ( */ // (").depth(), 0);
}

#[test]
fn the_brackets_of_this_crate_balance() {
    for text in [
        include_str!("../syntax.rs"),
        include_str!("scanner.rs"),
        include_str!("tests.rs"),
        include_str!("../../model/config.rs"),
    ] {
        let scanner = Scanner::after(text);
        assert_eq!((scanner.depth(), scanner.n_stray(), scanner.in_code()), (0, 0, true));
    }
}

proptest! {
    #[test]
    fn pieces_may_be_cut_anywhere(text in "[a-c'\"\\\\/*#r(){}\\[\\]\n ]{0,80}", cut in 0usize..80) {
        let (head, tail) = text.as_bytes().split_at(cut.min(text.len()));
        let mut pieces = Scanner::default();
        pieces.feed_bytes(head);
        pieces.feed_bytes(tail);
        prop_assert_eq!(format!("{pieces:?}"), format!("{:?}", { let mut whole = Scanner::default(); whole.feed(&text); whole }));
    }

    #[test]
    fn any_text_has_a_verdict(prefix in "\\PC{0,40}", completion in "\\PC{0,20}", suffix in "\\PC{0,40}") {
        check(&prefix, &completion, &suffix);
        prop_assert!(completion.starts_with(trim_overlap(&completion, &suffix)));
    }
}
