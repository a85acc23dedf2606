use proptest::prelude::*;

use super::*;

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
        include_str!("../overlap.rs"),
        include_str!("../scanner.rs"),
        include_str!("../verdict/tests.rs"),
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
}
