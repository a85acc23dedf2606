use super::*;

const SAMPLE: &str = "\u{feff}#!/usr/bin/env rust\n// größer\nfn straße(ä: &str) -> usize {\n    \
    let größe = ä.chars().count(); let λ = 1;\n    println!(\"„Zitat“ {größe}\"); // Rand\n    \
    let s = \"eins\n zwei drei vier fünf sechs\";\n    if größe > 3 {\n        return größe + λ;\n    }\n    \
    s.len() + größe\n}\n#[cfg(test)]\nmod tests { fn hidden() { let never = 1 + 2 + 3; } }\n\
    fn mixed() -> u32 {\n    #[cfg(unix)]\n    let os = \"unix only\";\n    let seven = 3 + 4;\n    seven\n}\n";

fn texts(kind: HoleKind) -> Vec<&'static str> {
    let holes = cut("p", "a.rs", SAMPLE, 7).expect("it parses");
    holes.iter().filter(|hole| hole.kind == kind).map(|hole| hole.truth(SAMPLE)).collect()
}

#[test]
fn statements_are_whole_and_in_order() {
    assert_eq!(
        texts(HoleKind::Statement),
        [
            "let größe = ä.chars().count();",
            "let λ = 1;",
            "println!(\"„Zitat“ {größe}\");",
            "let s = \"eins\n zwei drei vier fünf sechs\";",
            "if größe > 3 {\n        return größe + λ;\n    }",
            "return größe + λ;",
            "s.len() + größe",
            "let seven = 3 + 4;",
            "seven",
        ]
    );
}

#[test]
fn rests_of_lines_begin_in_the_middle_half() {
    for seed in 0..40 {
        for hole in cut("p", "a.rs", SAMPLE, seed).expect("it parses") {
            if hole.kind != HoleKind::RestOfLine {
                continue;
            }
            let line = SAMPLE.lines().nth(hole.line - 1).expect("the line exists");
            assert!(line.ends_with(hole.truth(SAMPLE)), "{line}");
            assert!(!line.contains("Rand") && !line.contains("zwei") && !line.contains("never"), "{line}");
            let indent = line.len() - line.trim_start().len();
            let n = line.trim().chars().count();
            let at = hole.col - 1 - indent;
            assert!((n / 4..n * 3 / 4).contains(&at), "{line} at {at}");
            assert_eq!(line.chars().skip(hole.col - 1).collect::<String>(), hole.truth(SAMPLE));
        }
    }
}

#[test]
fn line_tails_begin_at_a_token_after_the_first() {
    let text = "fn f() {\n    let größe = alpha.beta(\"x y\");\n}\n";
    for seed in 0..40 {
        let holes = cut("p", "a.rs", text, seed).expect("it parses");
        for hole in holes.iter().filter(|hole| hole.kind == HoleKind::LineTail) {
            let tails = ["größe = alpha", "= alpha", "alpha", ".beta", "beta", "(\"x y", "\"x y"];
            assert!(tails.iter().any(|tail| hole.truth(text).starts_with(tail)), "{}", hole.truth(text));
        }
    }
}

#[test]
fn every_kind_is_cut_and_knows_its_function() {
    let text = "struct S;\nimpl S {\n    fn f(&self, n: usize) -> usize {\n        let m = n.max(self.g(3) + 4);\n        \
                if m > 3 {\n            let k = m * 2;\n            return k + 1;\n        }\n        m\n    }\n\n    \
                fn g(&self, n: usize) -> usize {\n        fn inner() -> usize { 17_usize.pow(2) }\n        inner() + n\n    }\n}\n";
    let holes = cut("p", "a.rs", text, 1).expect("it parses");
    let texts =
        |kind| -> Vec<&str> { holes.iter().filter(|hole| hole.kind == kind).map(|hole| hole.truth(text)).collect() };
    assert_eq!(
        texts(HoleKind::Expression),
        ["n.max(self.g(3) + 4)", "self.g(3) + 4", "m > 3", "m * 2", "k + 1"],
        "whole expressions that are not part of one that starts with them"
    );
    assert_eq!(texts(HoleKind::Block), ["let k = m * 2;\n            return k + 1;"]);
    assert_eq!(texts(HoleKind::FunctionBody).len(), 3);
    assert_eq!(texts(HoleKind::NextLine)[0], "let m = n.max(self.g(3) + 4);");
    for kind in HoleKind::ALL {
        assert!(!texts(kind).is_empty(), "{kind:?}");
    }
    for hole in &holes {
        assert!(hole.fits(text));
        let function = &text[hole.function.0..hole.function.1];
        assert!(function.starts_with("fn f") || function.starts_with("fn g"), "{function}");
    }
    assert!(!holes[0].fits(&text.replace("3", "4")));
}

#[test]
fn splicing_the_truth_gives_back_the_file() {
    let holes = cut("p", "a.rs", SAMPLE, 3).expect("it parses");
    assert!(holes.len() > 8);
    for hole in holes {
        assert_eq!(hole.splice(SAMPLE, hole.truth(SAMPLE)), SAMPLE);
    }
}

#[test]
fn a_seed_names_its_holes_and_their_order() {
    let draw = |seed| order(cut("p", "a.rs", SAMPLE, seed).expect("it parses"), seed);
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn text_that_is_not_rust_has_no_holes() {
    assert_eq!(cut("p", "a.rs", "fn main( {", 0), None);
    assert_eq!(cut("p", "a.rs", &"(".repeat(100_000), 0), None);
}
