//! What types have: fields, variants, methods and their arguments, of the workspace, of the public interfaces of its
//! dependencies, and of the file that is being written.
//!
//! ```text
//! saved files      → extract (syn)           ┐
//! the live buffer  → tolerant (any text)     ┴→ records → Symbols: by the owner's name
//!                  → Scope: `self`, parameters, `let` ─┐
//! a line           → members: receiver . name ─────────┼→ how many exist, and how many cannot exist
//! a cursor         → names of types nearby ────────────┴→ declarations, for the prompt
//! ```
//!
//! Nothing is resolved: types of one name are one type, which has what any of them has. A type is *open* where it could
//! have members without a record, through a macro, an unknown derive, or `Deref`; a member of an open type is never
//! reported missing. Nothing is known of a generic type's parameters.

mod standard;
mod check;
mod tolerant;
mod extract;
mod declare;

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use crate::text::SourceFile;
use crate::tier::{N_TIERS, Tier};

pub use check::MemberCounts;
use check::{MemberChecker, Scope};
pub use declare::{declarations, settled};
pub use extract::extract_each;

/// What a record describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RecordKind {
    /// A struct, an enum or a union itself.
    Type,
    /// That a type could have members without a record.
    Open,
    /// A trait itself.
    Trait,
    /// That a type implements the trait of this name.
    Implements,
    /// A field, with its type.
    Field,
    /// A variant of an enum.
    Variant,
    /// A function that takes `self`, with the number of its other arguments and what it returns.
    Method,
    /// A function, constant or type that is named by `::`.
    Associated,
}

impl RecordKind {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Type, "T"),
        (Self::Open, "O"),
        (Self::Trait, "R"),
        (Self::Implements, "I"),
        (Self::Field, "F"),
        (Self::Variant, "V"),
        (Self::Method, "M"),
        (Self::Associated, "A"),
    ];
}

/// One thing that is known of a type or a trait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record<'a> {
    kind: RecordKind,
    owner: &'a str,
    /// Empty where the record describes the owner itself.
    name: &'a str,
    /// Arguments of a function, without `self`.
    n_args: Option<usize>,
    /// The type of a field, or what a function returns; empty if that is nothing or unknown.
    type_: &'a str,
}

/// Longer types are not recorded.
const MOST_TYPE_BYTES: usize = 120;
/// Most bytes of all records of one table.
const MOST_BYTES: usize = 64 << 20;

/// Records as text, one per line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records(String);

impl Records {
    fn add(&mut self, record: Record<'_>) {
        let Record { kind, owner, name, n_args, type_ } = record;
        let (_, letter) = RecordKind::ALL.iter().find(|(of, _)| *of == kind).expect("all kinds have a letter");
        // Line breaks and tabs of types are white space to Rust.
        let type_: String = if type_.len() > MOST_TYPE_BYTES {
            String::new()
        } else {
            type_.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
        };
        let n_args = n_args.map_or_else(String::new, |n| n.to_string());
        self.0.extend([letter, "\t", owner, "\t", name, "\t", &n_args, "\t", &type_, "\n"]);
    }

    /// The records of several files as if they were one.
    pub(super) fn all(each: Vec<Self>) -> Self {
        Self(each.into_iter().map(|records| records.0).collect())
    }

    /// The records as text, to be stored.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Records from what [`Records::as_str`] gave. Lines that are not records are skipped.
    pub fn from_text(text: String) -> Self {
        Self(text)
    }
}

fn record(line: &str) -> Option<Record<'_>> {
    let mut parts = line.split('\t');
    let letter = parts.next()?;
    let (kind, _) = *RecordKind::ALL.iter().find(|(_, of)| *of == letter)?;
    let (owner, name, n_args, type_) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    Some(Record { kind, owner, name, n_args: n_args.parse().ok(), type_ })
}

type Hasher = BuildHasherDefault<DefaultHasher>;

fn hash(name: &str) -> u64 {
    Hasher::default().hash_one(name)
}

/// Records by their owners. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Symbols(Arc<Table>);

#[derive(Debug, Default)]
struct Table {
    text: String,
    /// Names of files and where their records start, in order.
    files: Vec<(String, u32)>,
    /// For each record the hash of its owner and where it starts, in order.
    places: Vec<(u64, u32)>,
    /// Hashes of the names of members that traits give: any type might have them.
    of_traits: HashSet<u64, Hasher>,
}

impl Symbols {
    /// A table of the records of files; beyond some tens of megabytes files are left out.
    pub fn of(files: impl IntoIterator<Item = (String, Records)>) -> Self {
        let (mut text, mut starts) = (String::new(), Vec::new());
        for (name, Records(records)) in files {
            if text.len() + records.len() <= MOST_BYTES {
                starts.push((name, text.len() as u32));
                text.push_str(&records);
            }
        }
        text.shrink_to_fit();
        let mut places = Vec::new();
        let mut traits = HashSet::new();
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            if let Some(record) = record(line.trim_end_matches('\n')) {
                places.push((hash(record.owner), at as u32));
                if record.kind == RecordKind::Trait {
                    traits.insert(record.owner);
                }
            }
            at += line.len();
        }
        let records = text.lines().filter_map(record);
        let of_traits = records.filter(|record| traits.contains(record.owner) && !record.name.is_empty());
        let of_traits = of_traits.map(|record| hash(record.name)).collect();
        places.sort_unstable();
        Self(Arc::new(Table { text, files: starts, places, of_traits }))
    }

    /// The symbols of some files: all of them, or the public ones.
    pub fn of_files(files: &[SourceFile], only_public: bool) -> Self {
        Self::of(files.iter().map(|file| file.name.clone()).zip(extract_each(files, only_public)))
    }

    /// The records of a type or a trait outside the file `exclude`.
    fn of_owner<'a>(&'a self, owner: &'a str, exclude: &'a str) -> impl Iterator<Item = Record<'a>> + 'a {
        let Table { text, files, places, .. } = &*self.0;
        let of = hash(owner);
        let from = places.partition_point(|(hash, _)| *hash < of);
        let same = places[from..].iter().take_while(move |(hash, _)| *hash == of);
        let is_excluded = move |at: u32| {
            let file = files.partition_point(|(_, start)| *start <= at);
            !exclude.is_empty() && file.checked_sub(1).is_some_and(|file| files[file].0 == exclude)
        };
        let line = |at: u32| text[at as usize..].lines().next().unwrap_or_default();
        let same = same.filter(move |(_, at)| !is_excluded(*at));
        same.filter_map(move |(_, at)| record(line(*at))).filter(move |record| record.owner == owner)
    }

    fn is_of_trait(&self, name: &str) -> bool {
        self.0.of_traits.contains(&hash(name))
    }

    /// Approximate bytes on the heap.
    pub fn n_bytes(&self) -> usize {
        let Table { text, places, of_traits, .. } = &*self.0;
        text.len() + 16 * places.len() + 9 * of_traits.capacity()
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.0.places.len()
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.0.places.is_empty()
    }
}

/// The symbols that are known at a cursor: tables, the types of the current file, and what is in scope.
#[derive(Debug)]
pub struct CursorSymbols<'a> {
    /// By tier; that of the current file is made from its text.
    tables: [Symbols; N_TIERS],
    /// The current file, whose saved copy does not count.
    path: &'a str,
    scope: Scope<'a>,
}

impl<'a> CursorSymbols<'a> {
    /// Reads the lines before and after the cursor's line of the file `path`.
    pub fn of(tables: &[Symbols; N_TIERS], path: &'a str, before: &'a str, after: &'a str) -> Self {
        let (records, scope) = tolerant::read_around(before, after);
        let mut tables = tables.clone();
        tables[Tier::File as usize] = Symbols::of([(String::new(), records)]);
        Self { tables, path, scope }
    }

    /// Looks up the members that `line` names after its first `n_typed` bytes.
    pub fn members(&self, line: &str, n_typed: usize) -> MemberCounts {
        let Self { tables, path, scope } = self;
        MemberChecker { tables, path, scope, bound: &tolerant::bound_by_line(line) }.members(line, n_typed)
    }
}

/// The last name of the path of a type, without references and without the pointers that members are reached through;
/// empty if the type is not a path.
fn head(type_: &str) -> &str {
    let mut rest = type_.trim();
    loop {
        rest = rest.trim_start_matches(['&', ' ', '*']);
        if let Some(after) = rest.strip_prefix('\'') {
            rest = after.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_');
        } else if let Some(after) = rest.strip_prefix("mut ").or_else(|| rest.strip_prefix("const ")) {
            rest = after;
        } else {
            break;
        }
    }
    let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(rest.len());
    let (path, tail) = rest.split_at(end);
    let name = path.rsplit(':').next().unwrap_or_default();
    let tail = tail.trim_start();
    if matches!(name, "Box" | "Rc" | "Arc")
        && let Some(inner) = tail.strip_prefix('<')
    {
        return head(inner);
    }
    let is_path = tail.is_empty() || tail.starts_with(['<', '>', ',']);
    if is_path && !matches!(name, "dyn" | "impl" | "fn" | "for") { name } else { "" }
}

#[cfg(test)]
mod tests;
