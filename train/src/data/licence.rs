//! Which code may be trained on: an SPDX expression against a list of licences.
//!
//! A choice (`OR`, and the `/` of old manifests) needs one of its licences on the list, a sum (`AND`) all of them. What
//! follows `WITH` only permits more, so the licence before it decides. An expression that cannot be read, and a
//! package without one, are not allowed.

use spdx::{Expression, LicenseReq, Licensee, ParseMode};

/// The list where none is given: licences that ask for a notice at most.
pub const PERMISSIVE: &[&str] =
    &["MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "Unlicense", "0BSD", "CC0-1.0", "MIT-0"];

/// An entry of the list is not the identifier of a licence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not an SPDX licence identifier; write them like MIT,Apache-2.0 (https://spdx.org/licenses)")]
pub struct UnknownLicence {
    /// The entry as given.
    pub name: String,
}

/// Licences whose code may be trained on.
#[derive(Clone, Debug)]
pub struct Allowed(Vec<Licensee>);

impl Allowed {
    /// Parses a list of SPDX identifiers.
    pub fn new(names: &[impl AsRef<str>]) -> Result<Self, UnknownLicence> {
        let parse = |name: &str| {
            let is_plain = !name.contains(char::is_whitespace); // and so without an exception
            let licensee = if is_plain { Licensee::parse_mode(name, MODE).ok() } else { None };
            licensee.ok_or_else(|| UnknownLicence { name: name.to_owned() })
        };
        names.iter().map(|name| parse(name.as_ref().trim())).collect::<Result<_, _>>().map(Self)
    }

    /// Whether an expression is met by licences of the list alone.
    pub fn has(&self, expression: &str) -> bool {
        let Ok(expression) = Expression::parse_mode(expression.trim(), MODE) else { return false };
        expression.evaluate(|requirement| {
            let bare = LicenseReq { license: requirement.license.clone(), addition: None };
            self.0.iter().any(|licensee| licensee.satisfies(&bare))
        })
    }
}

/// As crates.io once took them: `MIT/Apache-2.0`, `GPL-2.0+`. Names are exact.
const MODE: ParseMode = ParseMode { allow_imprecise_license_names: false, ..ParseMode::LAX };

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn permissive() -> Allowed {
        Allowed::new(PERMISSIVE).expect("they are SPDX identifiers")
    }

    #[test]
    fn an_expression_is_allowed_where_the_list_meets_it() {
        for expression in [
            "MIT",
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "MIT / Apache-2.0",
            "Apache-2.0/GPL-3.0",
            "GPL-3.0-only OR MIT",
            "(MIT OR GPL-2.0-only) AND Zlib",
            "MIT AND (BSD-3-Clause OR MPL-2.0)",
            "Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT",
            "Apache-2.0 WITH LLVM-exception",
            "Apache-2.0+",
            " MIT ",
        ] {
            assert!(permissive().has(expression), "{expression}");
        }
        for expression in [
            "",
            "GPL-3.0-only",
            "MIT AND GPL-3.0-only",
            "(MIT OR Apache-2.0) AND MPL-2.0",
            "MIT OR",
            "MIT Apache-2.0",
            "(MIT",
            "LicenseRef-Ours",
            "proprietary",
            "see LICENSE",
            "MIT and nothing else",
            "GPL-2.0-only WITH Classpath-exception-2.0",
        ] {
            assert!(!permissive().has(expression), "{expression}");
        }
    }

    #[test]
    fn a_list_of_other_licences_allows_these_alone() {
        let allowed = Allowed::new(&["MPL-2.0", "GPL-3.0-or-later"]).expect("they are SPDX identifiers");
        assert!(allowed.has("MPL-2.0") && allowed.has("GPL-3.0-or-later OR Apache-2.0") && !allowed.has("MIT"));
        assert!(!Allowed::new(&[] as &[&str]).expect("an empty list is one").has("MIT"));
    }

    #[test]
    fn what_is_no_licence_is_refused_with_its_name() {
        for name in ["Mit License", "MIT OR Apache-2.0", "", "MIT WITH LLVM-exception"] {
            let error = Allowed::new(&["MIT", name]).expect_err(name);
            assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "[A-Za-z0-9.()/+ -]{0,60}|\\PC{0,30}") {
            permissive().has(&text);
        }

        #[test]
        fn a_choice_needs_one_and_a_sum_needs_all(a in 0..4usize, b in 0..4usize, c in 0..4usize) {
            let names = ["MIT", "Zlib", "GPL-3.0-only", "MPL-2.0"];
            let is_allowed = |i: usize| i < 2;
            let expression = format!("({} OR {}) AND {}", names[a], names[b], names[c]);
            prop_assert_eq!(permissive().has(&expression), (is_allowed(a) || is_allowed(b)) && is_allowed(c));
        }
    }
}
