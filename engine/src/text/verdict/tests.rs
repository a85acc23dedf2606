use proptest::prelude::*;

use super::*;
use crate::text::overlap::trim_overlap;

/// `$0` marks the cursor.
fn at_cursor(text: &str) -> (&str, &str) {
    text.split_once("$0").expect("a cursor")
}

fn verdict(text: &str, completion: &str) -> Verdict {
    let (prefix, suffix) = at_cursor(text);
    check(prefix, completion, suffix)
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

proptest! {
    #[test]
    fn any_text_has_a_verdict(prefix in "\\PC{0,40}", completion in "\\PC{0,20}", suffix in "\\PC{0,40}") {
        check(&prefix, &completion, &suffix);
        prop_assert!(completion.starts_with(trim_overlap(&completion, &suffix)));
    }
}
