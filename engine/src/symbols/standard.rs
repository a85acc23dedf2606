//! What is known without a record: which attributes and derives leave a type as it is written, and what the common
//! traits of the standard library give.

/// Attributes that leave a type as it is written, by the first name of their path.
const HARMLESS: [&str; 26] = [
    "allow",
    "automatically_derived",
    "cfg",
    "cfg_attr",
    "clippy",
    "default",
    "deny",
    "deprecated",
    "derive",
    "diagnostic",
    "doc",
    "error",
    "expect",
    "forbid",
    "inline",
    "must_use",
    "non_exhaustive",
    "repr",
    "rustc_on_unimplemented",
    "rustfmt",
    "serde",
    "stable",
    "track_caller",
    "unstable",
    "warn",
    "cold",
];
/// Derives that only add the methods of a trait.
const KNOWN_DERIVES: [&str; 12] = [
    "Clone",
    "Copy",
    "Debug",
    "Default",
    "PartialEq",
    "Eq",
    "PartialOrd",
    "Ord",
    "Hash",
    "Serialize",
    "Deserialize",
    "Error",
];
/// Traits of the standard library that give no member beyond these. With any other that no record shows, a type could
/// have members that are not known.
const PLAIN_TRAITS: [&str; 46] = [
    "Add",
    "AddAssign",
    "AsMut",
    "AsRef",
    "BitAnd",
    "BitAndAssign",
    "BitOr",
    "BitOrAssign",
    "BitXor",
    "BitXorAssign",
    "Borrow",
    "BorrowMut",
    "Clone",
    "Copy",
    "Debug",
    "Default",
    "Deserialize",
    "Display",
    "Div",
    "DivAssign",
    "Drop",
    "Eq",
    "Error",
    "From",
    "FromIterator",
    "FromStr",
    "Hash",
    "Index",
    "IndexMut",
    "Into",
    "IntoIterator",
    "LowerHex",
    "Mul",
    "MulAssign",
    "Neg",
    "Not",
    "Ord",
    "PartialEq",
    "PartialOrd",
    "Rem",
    "Send",
    "Serialize",
    "Sub",
    "SubAssign",
    "Sync",
    "ToOwned",
];
/// Members that those traits give.
const PLAIN_MEMBERS: [&str; 60] = [
    "Err",
    "Error",
    "IntoIter",
    "Item",
    "Output",
    "Owned",
    "Target",
    "add",
    "add_assign",
    "as_mut",
    "as_ref",
    "bitand",
    "bitor",
    "bitxor",
    "borrow",
    "borrow_mut",
    "by_ref",
    "cause",
    "clamp",
    "clone",
    "clone_from",
    "clone_into",
    "cmp",
    "default",
    "deserialize",
    "description",
    "div",
    "div_assign",
    "drop",
    "eq",
    "extend",
    "fmt",
    "from",
    "from_iter",
    "from_str",
    "ge",
    "gt",
    "hash",
    "index",
    "index_mut",
    "into",
    "into_iter",
    "le",
    "lt",
    "max",
    "min",
    "mul",
    "ne",
    "neg",
    "not",
    "partial_cmp",
    "rem",
    "serialize",
    "source",
    "sub",
    "sub_assign",
    "to_owned",
    "to_string",
    "try_from",
    "try_into",
];

/// The name of a trait, with the module that its path names unless that is one of the standard library.
pub(super) fn trait_name(path: &str) -> &str {
    let end = path.find('<').unwrap_or(path.len());
    let path = path[..end].trim();
    let Some((modules, name)) = path.rsplit_once("::") else { return path };
    let module = modules.rsplit("::").next().unwrap_or_default();
    let is_std = matches!(
        module,
        "std"
            | "core"
            | "alloc"
            | "fmt"
            | "error"
            | "ops"
            | "cmp"
            | "convert"
            | "hash"
            | "iter"
            | "io"
            | "str"
            | "borrow"
    );
    if is_std { name } else { &path[path.len() - module.len() - "::".len() - name.len()..] }
}

/// Whether an attribute whose path starts with this name leaves its item as it is written.
pub(super) fn is_harmless(attribute: &str) -> bool {
    HARMLESS.contains(&attribute)
}

/// Whether a derive adds only what a trait has.
pub(super) fn is_known_derive(name: &str) -> bool {
    KNOWN_DERIVES.contains(&name)
}

/// Whether a trait of this name gives no member beyond [`is_plain_member`].
pub(super) fn is_plain_trait(name: &str) -> bool {
    PLAIN_TRAITS.contains(&name)
}

/// Whether a common trait of the standard library gives a member of this name.
pub(super) fn is_plain_member(name: &str) -> bool {
    PLAIN_MEMBERS.contains(&name)
}
