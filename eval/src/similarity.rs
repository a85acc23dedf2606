//! How close a completion is to the truth.

/// `1 − distance / longer length`, in characters; 1 for two empty texts.
pub fn edit_similarity(a: &str, b: &str) -> f64 {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let longer = a.len().max(b.len());
    if longer == 0 { 1.0 } else { 1.0 - levenshtein(&a, &b) as f64 / longer as f64 }
}

/// Characters that a user need not type who accepts the completion line by line, as long as each line equals the
/// truth's, trailing white space aside.
pub fn saved_chars(completion: &str, truth: &str) -> usize {
    let pairs = completion.lines().zip(truth.lines()).take_while(|(ours, theirs)| ours.trim_end() == theirs.trim_end());
    pairs.map(|(_, line)| line.trim_end().chars().count()).sum()
}

fn levenshtein(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similarity_counts_characters() {
        assert_eq!(edit_similarity("kitten", "sitting"), 1.0 - 3.0 / 7.0);
        assert_eq!(edit_similarity("größe", "grosse"), 1.0 - 3.0 / 6.0);
        assert_eq!(edit_similarity("", ""), 1.0);
        assert_eq!(edit_similarity("", "abc"), 0.0);
    }

    #[test]
    fn lines_are_accepted_up_to_the_first_that_is_wrong() {
        assert_eq!(saved_chars("ä;\nb;\nx;\nd;", "ä; \nb;\nc;\nd;"), 4);
        assert_eq!(saved_chars("abc", "abd"), 0);
        assert_eq!(saved_chars("abc\nmore", "abc"), 3);
    }
}
