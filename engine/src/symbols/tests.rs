use super::*;

fn file(name: &str, text: &str) -> SourceFile {
    SourceFile { name: name.into(), path: name.into(), text: text.into() }
}

fn tables(text: &str) -> [Symbols; N_TIERS] {
    let mut tables = <[Symbols; N_TIERS]>::default();
    tables[Tier::Workspace as usize] = Symbols::of_files(&[file("store.rs", text)], false);
    tables
}

const STORE: &str = "
#[derive(Clone, Debug)]
pub struct Store {
    pub root: PathBuf,
    index: Box<Index<'static>>,
}

struct Index<'a> { names: Vec<&'a str>, n_files: usize }

impl Store {
    pub const LIMIT: usize = 4;
    pub fn at(root: PathBuf) -> Self { todo!() }
    fn index(&self) -> &Index<'_> { &self.index }
    pub fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), Full> { todo!() }
}

impl Index<'_> {
    fn len(&self) -> usize { self.n_files }
}

pub enum Full { Disk(usize), Quota { bytes: u64 }, #[default] Other }
";

/// Of `line` in a function of `impl Store` that has `more` before it.
fn within(text: &str, more: &str, line: &str) -> MemberCounts {
    let before = format!(
        "use crate::workspace::store::Store;\nimpl Store {{\n    fn f(&self, full: Full, other: &mut Store) {{\n{more}"
    );
    let tables = tables(text);
    CursorSymbols::of(&tables, "live.rs", &before, "    }\n}\n").members(line, 0)
}

fn there(n: u16) -> MemberCounts {
    MemberCounts { n_existing: n, ..MemberCounts::default() }
}

#[test]
fn the_two_readers_record_the_same() {
    let whole = extract_each(&[file("a.rs", STORE)], false).remove(0);
    assert_eq!(whole, tolerant::records(STORE));
    let expected = "T\tStore\t\t\t\nF\tStore\troot\t\tPathBuf\nF\tStore\tindex\t\tBox<Index<'static>>\n";
    assert!(whole.as_str().starts_with(expected), "{}", whole.as_str());
    assert!(whole.as_str().contains("M\tStore\tput\t2\tResult<(), Full>\n"), "{}", whole.as_str());
    assert!(whole.as_str().contains("A\tStore\tat\t1\tStore\n"), "{}", whole.as_str());
}

#[test]
fn of_a_dependency_what_is_public_counts_and_what_implements() {
    let text = format!(
        "{STORE}impl fmt::Display for Store {{ fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {{ todo!() }} }}"
    );
    let records = extract_each(&[file("a.rs", &text)], true).remove(0);
    let has = |line: &str| records.as_str().contains(line);
    assert!(
        has("F\tStore\troot\t") && has("M\tStore\tput\t") && has("M\tStore\tfmt\t1\t") && has("I\tStore\tDisplay\t")
    );
    assert!(!has("\tStore\tindex\t") && !has("\tlen\t"));
}

#[test]
fn members_are_there_or_missing_where_the_receiver_is_known() {
    assert_eq!(within(STORE, "", "self.root"), there(1));
    assert_eq!(within(STORE, "", "self.index.n_files + other.index().len()"), there(4));
    assert_eq!(within(STORE, "", "Store::at(root).put(a, Self::LIMIT)"), there(3));
    assert_eq!(within(STORE, "", "Full::Disk(1) | Full::Quota { .. } | Full::Other"), there(3));
    assert_eq!(within(STORE, "", "self.rot").n_missing, 1);
    assert_eq!(within(STORE, "", "Full::Dsk(1)").n_missing, 1);
    assert_eq!(
        within(STORE, "", "g(self.index.nope, Store::open())"),
        MemberCounts { n_existing: 1, n_missing: 2, n_wrong_calls: 0 }
    );
    assert_eq!(within(STORE, "", "unknown.rot + self.root.nope()"), there(1), "of other types nothing is known");
    assert_eq!(within(STORE, "", "self.clone().to_string()"), there(0), "traits give these to any type");
}

#[test]
fn only_names_after_the_typed_part_count() {
    let tables = tables(STORE);
    let around = CursorSymbols::of(&tables, "live.rs", "impl Store {\n    fn f(&self) {\n", "    }\n}\n");
    assert_eq!(around.members("self.rot.is_ok() && self.index", "self.rot.is_ok() && self.".len()), there(1));
    assert_eq!(around.members("self.rot", "self.ro".len()).n_missing, 1, "the name continues after the cursor");
}

#[test]
fn calls_are_counted_where_they_can_be() {
    assert_eq!(within(STORE, "", "other.put(name)").n_wrong_calls, 1);
    assert_eq!(within(STORE, "", "other.put(name, &bytes[..n], )").n_wrong_calls, 0);
    assert_eq!(within(STORE, "", "other.put(f(a, b), c)").n_wrong_calls, 0);
    assert_eq!(within(STORE, "", "Store::put(other, name, bytes)").n_wrong_calls, 0, "`self` is given");
    assert_eq!(within(STORE, "", "Store::put(name, bytes)").n_wrong_calls, 1);
    assert_eq!(within(STORE, "", "other.put(name, |a, b, c| a)").n_wrong_calls, 0, "a closure has commas");
    assert_eq!(within(STORE, "", "other.put(").n_wrong_calls, 0, "it continues");
}

#[test]
fn variables_have_the_type_that_is_written_or_that_of_their_value() {
    let missing = |more: &str, line: &str| within(STORE, more, line).n_missing;
    assert_eq!(missing("        let store: &Store = g();\n", "store.rot"), 1);
    assert_eq!(missing("        let store = Store::at(root);\n", "store.rot"), 1);
    assert_eq!(missing("        let store = &mut other.index();\n", "store.rot"), 1);
    assert_eq!(missing("        let store = other.put(a, b);\n", "store.rot"), 0, "a `Result` is not known");
    assert_eq!(missing("        let other = g();\n", "other.rot"), 0, "the inner one hides the parameter");
    assert_eq!(missing("        for other in all {\n", "other.rot"), 0);
    assert_eq!(missing("        for other in all {\n        }\n", "other.rot"), 1, "the loop is over");
    assert_eq!(missing("        if let Some(other) = g() {\n", "other.rot"), 0);
    assert_eq!(missing("        match g() {\n            Some(other) => 1,\n", "other.rot"), 0);
    assert_eq!(missing("", "all.iter().map(|other| other.rot)"), 0, "the line itself hides it");
    assert_eq!(missing("        let other = other;\n", "other.rot"), 0, "and no circle is followed");
}

#[test]
fn an_open_type_may_have_anything() {
    let open = |more: &str| within(&format!("{STORE}{more}"), "", "self.rot").n_missing;
    assert_eq!(open("impl fmt::Display for Store {}"), 1);
    assert_eq!(open("impl Deref for Store {}"), 0);
    assert_eq!(open("impl de::Error for Store {}"), 0, "another module's trait of that name");
    assert_eq!(open("methods! { Store }"), 0);
    assert_eq!(open("type Other = Store; struct Store;"), 1);
    assert_eq!(open("#[derive(Builder)] struct Store;"), 0);
    assert_eq!(open("#[pyclass] struct Store;"), 0);
    assert_eq!(open("trait Rots { fn rot(&self); }"), 0, "a trait has it");
    assert_eq!(open("trait Rots { fn rots(&self); } impl Rots for Store {}"), 1);
}

#[test]
fn parameters_and_imports_hide_types_of_one_name() {
    let tables = tables(STORE);
    let missing = |before: &str| CursorSymbols::of(&tables, "live.rs", before, "}\n").members("store.rot", 0).n_missing;
    assert_eq!(missing("fn f(store: Store) {\n"), 1);
    assert_eq!(missing("fn f<Store>(store: Store) {\n"), 0);
    assert_eq!(missing("use std::store::Store;\nfn f(store: Store) {\n"), 0);
    assert_eq!(missing("use other::{self, Store};\nfn f(store: Store) {\n"), 0);
    assert_eq!(missing("use super::Store;\nfn f(store: Store) {\n"), 1);
}

#[test]
fn the_live_text_replaces_its_saved_copy() {
    let tables = tables(STORE);
    let live = "struct Store {\n    rot: u8,\n}\nfn f(store: Store) {\n";
    let found = |path| CursorSymbols::of(&tables, path, live, "}\n").members("store.root + store.rot", 0);
    assert_eq!(found("store.rs"), MemberCounts { n_existing: 1, n_missing: 1, n_wrong_calls: 0 });
    assert_eq!(found("live.rs"), there(2), "another file's type of that name counts");
}

#[test]
fn text_after_the_cursor_counts_though_a_brace_is_missing() {
    let tables = tables("");
    let before = "struct Set;\n\nimpl Set {\n    fn a(&self) {\n";
    let after = "            g();\n        }\n    }\n\n    fn b(&self) {}\n}\n\nfn c() {}\n";
    let around = CursorSymbols::of(&tables, "live.rs", before, after);
    assert_eq!(around.members("        if self.b() {", 0), there(1));
    assert_eq!(around.members("        if self.c() {", 0).n_missing, 1);
}

#[test]
fn a_field_that_is_being_written_hides_those_after_it() {
    let tables = tables("");
    let around = CursorSymbols::of(&tables, "live.rs", "struct Set {\n    a: u8,\n", "}\nfn f() {}\n");
    assert_eq!(around.members("    b: fn(&Set) -> Set::Item,", 0).n_missing, 0);
}

#[test]
fn heads_of_types_are_seen_through_references_and_pointers() {
    let heads = [
        "&'a mut Store",
        "Arc<Box<a::Store<T>>>",
        "Vec<Store>",
        "[Store]",
        "(A, B)",
        "dyn Store",
        "impl Store",
        "fn()",
        "",
    ];
    assert_eq!(heads.map(head), ["Store", "Store", "Vec", "", "", "", "", "", ""]);
}

#[test]
fn any_text_is_read_without_a_panic() {
    let pieces = [
        "impl",
        "fn",
        "struct",
        "enum",
        "trait",
        "S",
        "x",
        "{",
        "}",
        "(",
        ")",
        "<",
        ">",
        "[",
        "]",
        ",",
        ":",
        ";",
        "=",
        "|",
        "#",
        "!",
        "let",
        "for",
        "in",
        "use",
        "self",
        ".",
        "\"",
        "macro_rules",
        "const",
        "->",
        "\n",
    ];
    let mut rng = crate::rng::Rng::new(1);
    for _ in 0..3000 {
        let text: String = (0..rng.below(40)).map(|_| format!("{} ", pieces[rng.below(pieces.len())])).collect();
        let tables = <[Symbols; N_TIERS]>::default();
        let line: String = (0..rng.below(20)).map(|_| pieces[rng.below(pieces.len())]).collect();
        CursorSymbols::of(&tables, "a.rs", &text, &text).members(&line, rng.below(8));
    }
    let deep = "self.a(".repeat(50);
    within(STORE, "", &deep);
}

#[test]
fn a_table_skips_lines_that_are_not_records() {
    let text = "T\tStore\t\t\t\nX\tStore\t\t\t\nM\tStore\n\nM\tStore\tput\tmany\t()\n".to_owned();
    let symbols = Symbols::of([("a.rs".to_owned(), Records::from_text(text))]);
    assert_eq!(symbols.len(), 2);
    let put = symbols.of_owner("Store", "").find(|record| record.name == "put").expect("it is there");
    assert_eq!((put.kind, put.n_args), (RecordKind::Method, None));
    assert_eq!(symbols.of_owner("Store", "a.rs").count(), 0);
}

#[test]
fn what_types_near_the_cursor_have_is_declared() {
    let before = "use crate::workspace::store::Store;\nuse std::path::Path;\nstruct Live { n: u8 }\nimpl Store {\n    fn f(\n        full: Full,\n        live: Live,\n        path: Path,\n    ) {\n";
    let tables = tables(&format!("{STORE}\nstruct Path {{ not_this: u8 }}\nstruct Far {{ a: u8 }}\n"));
    let declared = declarations(&tables, "live.rs", before, "    }\n}\n", 1000);
    let expected = "Full ::Disk ::Quota ::Other\n\
        Live .n: u8\n\
        Store .root: PathBuf .index: Box<Index<'static>> .index() -> &Index<'_> .put(_, _) -> Result<(), Full> ::f(_, _, _) ::LIMIT ::at(_) -> Store\n";
    assert_eq!(declared, expected);
    // The type whose `impl` it is comes first.
    let few = declarations(&tables, "live.rs", before, "    }\n}\n", 80);
    assert_eq!(few, "Store .root: PathBuf .index: Box<Index<'static>> .index() -> &Index<'_> ::LIMIT\n");
    for most_bytes in 0..expected.len() + 2 {
        assert!(declarations(&tables, "live.rs", before, "", most_bytes).len() <= most_bytes);
    }
    // A type of the current file is as it is in the buffer, not as it was saved.
    assert_eq!(declarations(&tables, "store.rs", before, "", 1000), "Live .n: u8\nStore ::f(_, _, _)\n");
}

#[test]
fn declarations_stay_while_some_lines_are_written() {
    let lines: String = (0..40).map(|n| format!("    let x{n} = 1;\n")).collect();
    let mut settled_at = Vec::new();
    for end in 0..lines.len() {
        settled_at.push(settled(&lines[..end]).len());
    }
    assert!(settled_at.is_sorted());
    settled_at.dedup();
    assert_eq!(settled_at.len(), 1 + 39 / 8);
    assert_eq!(settled("fn f() {"), "");
}
