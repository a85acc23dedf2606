//! A completion without the tail that already follows the cursor.

use super::scanner::Scanner;
use super::suffix::balanced_part;

/// How far into the suffix an overlap may reach.
const MAX_OVERLAP: usize = 256;

/// [`Scanner::trim_overlap`] where nothing is known of the text before the cursor.
pub fn trim_overlap<'a>(completion: &'a str, suffix: &str) -> &'a str {
    Scanner::default().trim_overlap(completion, suffix)
}

impl Scanner {
    /// The completion without the tail that already follows the cursor. `self` has read up to the cursor. A closing
    /// bracket stays where the brackets before the cursor need both it and the suffix's.
    pub fn trim_overlap<'a>(&self, completion: &'a str, suffix: &str) -> &'a str {
        let whole = self.imbalance(completion, suffix);
        for at in completion.len().saturating_sub(MAX_OVERLAP)..completion.len() {
            let Some((kept, tail)) = completion.split_at_checked(at) else { continue };
            if tail.trim().is_empty() || !suffix.starts_with(tail) {
                continue;
            }
            // Two of these in a row are never meant.
            if matches!(tail.trim(), ";" | ",") && self.is_code_after(kept) {
                return kept;
            }
            let trimmed = self.imbalance(kept, suffix);
            // Where brackets decide for neither, only the whole rest of a line counts as a repetition.
            let rest = &suffix[tail.len()..];
            let ends_line =
                rest.trim_start_matches([' ', '\t']).chars().next().is_none_or(|next| "\r\n".contains(next));
            if trimmed < whole || (trimmed == whole && ends_line) {
                return kept;
            }
        }
        completion
    }

    fn is_code_after(&self, completion: &str) -> bool {
        let mut scanner = self.clone();
        scanner.feed(completion);
        scanner.in_code() && !scanner.in_comment()
    }

    /// Brackets and literals without a partner once `completion` and the suffix are read.
    fn imbalance(&self, completion: &str, suffix: &str) -> usize {
        let mut scanner = self.clone();
        scanner.feed(completion);
        scanner.feed(balanced_part(suffix));
        scanner.n_stray() + scanner.depth() + usize::from(!scanner.in_code())
    }
}

#[cfg(test)]
mod tests;
