use super::*;

fn trimmed<'a>(text: &str, completion: &'a str) -> &'a str {
    // `$0` marks the cursor.
    let (prefix, suffix) = text.split_once("$0").expect("a cursor");
    Scanner::after(prefix).trim_overlap(completion, suffix)
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
