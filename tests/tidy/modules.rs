//! Sibling modules depend on each other in one direction, at every level of every crate.
//!
//! ```text
//! files of a crate → modules, by `mod` (not those of `#[cfg(test)]`)
//! `use` trees, and paths in code, macros and attributes → the module that declares what is named, through re-exports
//! a module of a/b that names something of a/c → b depends on c, in a
//! b depends on c, and c on b, directly or through others → both edges are on a circle
//! ```
//!
//! A parent and its child may name each other: what siblings share is a leaf or is declared by their parent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemUse, Macro, Meta, UseTree};

use super::rust_files;
use crate::support::repository;

/// The folders of the crates.
const FOLDERS: [&str; 6] = ["kernels", "engine", "eval", "train", "lsp", "cargo-nanochat"];

/// A path, split at `::`; as an absolute one it starts below the crate's root.
type Segments = Vec<String>;

/// The modules of a crate by their absolute paths. The root's is empty.
#[derive(Debug, Default)]
struct Crate {
    modules: BTreeMap<Segments, Module>,
}

#[derive(Debug, Default)]
struct Module {
    /// Names of the items that are declared here.
    declared: BTreeSet<String>,
    /// What `use` brings in, re-exports among it: the name here → the path as it is written.
    imported: BTreeMap<String, Segments>,
    /// Paths before `::*`.
    globs: Vec<Segments>,
    /// Paths that occur here, `use` among them, as they are written.
    named: Vec<Segments>,
}

/// An edge that is on a circle.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    parent: String,
    from: String,
    to: String,
    /// The path that makes it and the module in which it is written.
    reason: String,
}

#[test]
fn sibling_modules_depend_on_each_other_in_one_direction() {
    for folder in FOLDERS {
        let found = Crate::read(&repository().join(folder).join("src")).circles();
        assert!(found.is_empty(), "{folder}: {found:#?}");
    }
}

#[test]
fn a_circle_is_found_through_braces_renames_reexports_macros_and_inline_paths() {
    let circle = |files: &str| {
        let found = Crate::of(&texts(files)).circles();
        found.into_iter().map(|edge| format!("{}: {} -> {}", edge.parent, edge.from, edge.to)).collect::<Vec<_>>()
    };
    // Two modules, one of which names the other through a re-export of the root and under another name.
    let two = "//- /lib.rs\nmod a;\nmod b;\npub use a::{Thing as Other};\n//- /a.rs\npub struct Thing;\n\
               fn f() { crate::b::g() }\n";
    assert_eq!(
        circle(&format!("{two}//- /b.rs\npub fn g(_: &crate::Other) {{}}\n")),
        ["crate: a -> b", "crate: b -> a"]
    );
    assert!(circle(&format!("{two}//- /b.rs\npub fn g() {{}}\n")).is_empty());
    // Three modules one level down, by `super`, by a macro's argument and by a name that `use` brings in.
    let three = "//- /lib.rs\nmod m { pub mod a; pub mod b; pub mod c; }\n//- /m/a.rs\nuse super::{b as other, c};\n\
                 pub const A: u8 = other::B;\n//- /m/b.rs\nuse self::inner::f;\nmod inner { pub fn f() { \
                 println!(\"{}\", super::super::c::C) } }\npub const B: u8 = 0;\n";
    let back = "//- /m/c.rs\n#[serde(with = \"super::a\")]\npub struct C;\n";
    assert_eq!(circle(&format!("{three}{back}")), ["m: a -> b", "m: a -> c", "m: b -> c", "m: c -> a"]);
    assert!(circle(&format!("{three}//- /m/c.rs\npub struct C;\n")).is_empty());
}

#[test]
fn tests_children_and_other_crates_are_not_on_circles() {
    let files = "//- /lib.rs\nmod a;\nmod b;\nuse a::f;\n//- /a.rs\nmod child;\nuse std::b::X;\n\
                 pub fn f() { child::g() }\n\
                 #[cfg(test)]\nmod tests { use crate::b::h; }\n#[cfg(all(test, unix))]\nuse crate::b;\n\
                 //- /a/child.rs\n\
                 pub fn g() { super::f() }\n//- /b.rs\npub fn h() { crate::a::f() }\n";
    assert_eq!(Crate::of(&texts(files)).circles(), []);
}

impl Crate {
    /// Reads the crate whose root is in `folder`.
    fn read(folder: &Path) -> Self {
        let files = rust_files(folder).into_iter().map(|path| {
            let text = std::fs::read_to_string(&path).expect("sources are UTF-8");
            (path.strip_prefix(folder).expect("it is in the folder").to_owned(), text)
        });
        Self::of(&files.collect())
    }

    /// Parses the files that the root's `mod` lines reach.
    fn of(files: &BTreeMap<PathBuf, String>) -> Self {
        let mut all = Self::default();
        let root = ["lib.rs", "main.rs"].map(PathBuf::from).into_iter().find(|root| files.contains_key(root));
        all.add_file(files, &Segments::new(), &root.expect("a crate has a root"), Path::new(""));
        all
    }

    /// Adds the module of `file`, whose children are in `folder`.
    fn add_file(&mut self, files: &BTreeMap<PathBuf, String>, module: &Segments, file: &Path, folder: &Path) {
        let parsed = syn::parse_file(&files[file]).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.add(files, module, &parsed.items, folder);
    }

    fn add(&mut self, files: &BTreeMap<PathBuf, String>, module: &Segments, items: &[Item], folder: &Path) {
        let mut reader = Reader::default();
        for item in items.iter().filter(|item| !is_test(attributes(item))) {
            reader.module.declared.extend(name(item));
            let Item::Mod(child) = item else {
                reader.visit_item(item);
                continue;
            };
            let name = child.ident.to_string();
            let path = [&module[..], std::slice::from_ref(&name)].concat();
            match &child.content {
                Some((_, items)) => self.add(files, &path, items, &folder.join(name)),
                None => {
                    let file = folder.join(format!("{name}.rs"));
                    self.add_file(files, &path, &file, &folder.join(name));
                }
            }
        }
        self.modules.insert(module.clone(), reader.module);
    }

    /// The absolute path of what `written` means in `module`; `None` for what is not of this crate.
    fn absolute(&self, module: &[String], written: &[String]) -> Option<Segments> {
        let (first, rest) = written.split_first()?;
        match first.as_str() {
            "crate" => Some(rest.to_vec()),
            "self" => Some([module, rest].concat()),
            "super" => {
                let (_, parent) = module.split_last()?;
                let goes_further = rest.first().is_some_and(|next| next == "super");
                if goes_further { self.absolute(parent, rest) } else { Some([parent, rest].concat()) }
            }
            _ => {
                let child = [module, std::slice::from_ref(first)].concat();
                if self.modules.contains_key(&child) {
                    return Some([&child[..], rest].concat());
                }
                let imported = self.modules.get(module)?.imported.get(first)?;
                // `use x::y as x` would go round.
                let is_other = imported.first() != Some(first);
                is_other.then(|| Some([&self.absolute(module, imported)?[..], rest].concat())).flatten()
            }
        }
    }

    /// The module that declares what `path` names, through re-exports.
    fn declarer(&self, path: &[String], seen: &mut BTreeSet<Segments>) -> Segments {
        for (at, name) in path.iter().enumerate() {
            let (module, rest) = (&path[..at], &path[at + 1..]);
            let Some(content) = self.modules.get(module) else { break };
            if self.modules.contains_key(&path[..=at]) || content.declared.contains(name) {
                continue;
            }
            let direct = content.imported.get(name).and_then(|written| self.absolute(module, written));
            let globs = content.globs.iter().filter_map(|written| self.absolute(module, written));
            let declares = |glob: &Segments| self.modules.get(glob).is_some_and(|glob| glob.declared.contains(name));
            let from_glob = || globs.map(|glob| (declares(&glob), glob)).find(|(declares, _)| *declares);
            let target =
                direct.or_else(|| from_glob().map(|(_, glob)| [&glob[..], std::slice::from_ref(name)].concat()));
            if let Some(target) = target
                && seen.insert(path[..=at].to_vec())
            {
                return self.declarer(&[&target[..], rest].concat(), seen);
            }
        }
        (0..=path.len())
            .rev()
            .map(|n| &path[..n])
            .find(|path| self.modules.contains_key(*path))
            .unwrap_or_default()
            .to_vec()
    }

    /// All edges that are on circles of siblings.
    fn circles(&self) -> Vec<Edge> {
        let mut reasons: BTreeMap<Segments, BTreeMap<(String, String), String>> = BTreeMap::new();
        for (module, content) in &self.modules {
            for written in &content.named {
                let Some(path) = self.absolute(module, written) else { continue };
                let target = self.declarer(&path, &mut BTreeSet::new());
                let n_shared = module.iter().zip(&target).take_while(|(a, b)| a == b).count();
                if let (Some(from), Some(to)) = (module.get(n_shared), target.get(n_shared)) {
                    let reason = format!("{} in {}", written.join("::"), module.join("::"));
                    let siblings = reasons.entry(module[..n_shared].to_vec()).or_default();
                    siblings.entry((from.clone(), to.clone())).or_insert(reason);
                }
            }
        }
        let mut found = Vec::new();
        for (parent, edges) in reasons {
            for ((from, to), reason) in &edges {
                if reaches(&edges, to, from) {
                    let parent = if parent.is_empty() { "crate".to_owned() } else { parent.join("::") };
                    found.push(Edge { parent, from: from.clone(), to: to.clone(), reason: reason.clone() });
                }
            }
        }
        found
    }
}

fn reaches(edges: &BTreeMap<(String, String), String>, from: &str, to: &str) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(at) = open.pop() {
        if at == to {
            return true;
        }
        if seen.insert(at) {
            open.extend(edges.keys().filter(|(start, _)| start == at).map(|(_, end)| end.as_str()));
        }
    }
    false
}

/// Collects what one module names.
#[derive(Debug, Default)]
struct Reader {
    module: Module,
}

impl Reader {
    fn import(&mut self, tree: &UseTree, before: &[String]) {
        let with = |name: String| [before, &[name]].concat();
        match tree {
            UseTree::Path(path) => self.import(&path.tree, &with(path.ident.to_string())),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(tree, before)),
            UseTree::Glob(_) => {
                self.module.globs.push(before.to_vec());
                self.module.named.push(before.to_vec());
            }
            UseTree::Name(name) => {
                let name = name.ident.to_string();
                let path = if name == "self" { before.to_vec() } else { with(name) };
                self.bring(path.last().cloned().unwrap_or_default(), path);
            }
            UseTree::Rename(rename) => {
                let name = rename.ident.to_string();
                let path = if name == "self" { before.to_vec() } else { with(name) };
                self.bring(rename.rename.to_string(), path);
            }
        }
    }

    fn bring(&mut self, name: String, path: Segments) {
        self.module.named.push(path.clone());
        self.module.imported.insert(name, path);
    }

    /// Paths among tokens that are not parsed: identifiers with `::` between them, and strings that are paths.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path = Segments::new();
        let mut n_colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if n_colons != 2 {
                        self.module.named.extend((path.len() > 1).then(|| std::mem::take(&mut path)));
                        path.clear();
                    }
                    path.push(ident.to_string());
                    n_colons = 0;
                    continue;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => {
                    n_colons += 1;
                    continue;
                }
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Literal(literal) => {
                    let text = literal.to_string();
                    let text = text.trim_matches('"');
                    if ["crate::", "super::", "self::"].iter().any(|root| text.starts_with(root)) {
                        self.module.named.push(text.split("::").map(str::to_owned).collect());
                    }
                }
                TokenTree::Punct(_) => {}
            }
            self.module.named.extend((path.len() > 1).then(|| std::mem::take(&mut path)));
            path.clear();
            n_colons = 0;
        }
        self.module.named.extend((path.len() > 1).then_some(path));
    }
}

impl<'a> Visit<'a> for Reader {
    fn visit_item(&mut self, item: &'a Item) {
        if !is_test(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'a ItemUse) {
        self.import(&item.tree, &[]);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        // `::name` is another crate.
        if path.leading_colon.is_none() {
            self.module.named.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'a Macro) {
        visit::visit_macro(self, call);
        self.tokens(call.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'a Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
    }
}

/// Whether `#[cfg(test)]`, alone or in an `all(…)`, leaves this out of what is built.
pub(super) fn is_test(attributes: &[Attribute]) -> bool {
    fn needs_test(tokens: TokenStream) -> bool {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        match &tokens[..] {
            [TokenTree::Ident(all), TokenTree::Group(group)] if all == "all" => {
                let inside: Vec<TokenTree> = group.stream().into_iter().collect();
                let is_comma = |token: &TokenTree| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',');
                inside.split(is_comma).any(|part| needs_test(part.iter().cloned().collect()))
            }
            [TokenTree::Ident(test)] => test == "test",
            _ => false,
        }
    }
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && needs_test(list.tokens.clone()),
        _ => false,
    })
}

/// The attributes of an item.
pub(super) fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The name that an item declares, if it has one that paths can use.
fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Mod(item) => &item.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        _ => return None,
    };
    Some(ident.to_string())
}

/// Files in the mini-language: `//- /path` starts a file.
fn texts(files: &str) -> BTreeMap<PathBuf, String> {
    let files = files.split("//- /").skip(1);
    files.filter_map(|file| file.split_once('\n')).map(|(name, text)| (name.into(), text.to_owned())).collect()
}
