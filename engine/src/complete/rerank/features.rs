//! What is known of a candidate, as named numbers.

use super::context::{ContextFeatures, NextLine};
use crate::complete::candidates::{CloneMatch, InfillMatch};
use crate::complete::line::LineEnd;
use crate::complete::network::{Feature, flag};
use crate::complete::next_token::ModelLogP;
use crate::symbols::MemberCounts;

/// What is known of a candidate. "Searched" is what the search found; "the best" is the best of all candidates by the
/// same measure.
#[derive(Clone, Copy, Debug)]
pub(in crate::complete) struct CandidateFeatures {
    /// ln p of the line by the search, and of the best line by it; `None` where the search has not found it.
    pub(super) searched: Option<(f32, f32)>,
    /// What the model alone gives the line and its end, and ln p of the best line by it; `None` where it was not asked.
    pub(super) by_model: Option<(ModelLogP, f32)>,
    /// ln p of the start of the suffix after the line, by the memory, and of how many tokens that is.
    pub(super) suffix: (f32, usize),
    /// Where it occurs elsewhere between the same texts.
    pub(super) infill: Option<InfillMatch>,
    /// The most tokens that any infill candidate has in common before and after it.
    pub(super) most_infill: (u32, u32),
    /// Where the same line is under other names.
    pub(super) renamed: Option<CloneMatch>,
    /// Tokens of the line.
    pub(super) n_tokens: usize,
    /// Those of them that come from the model.
    pub(super) n_from_model: usize,
    /// Members that the line names.
    pub(super) members: MemberCounts,
    /// Where the line would be.
    pub(super) position: Position,
    /// How the line meets the text around it.
    pub(super) context: ContextFeatures,
}

/// Where a candidate would be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::complete) enum Position {
    /// Nothing follows on its line.
    LineEnd,
    /// Text follows the cursor on its line.
    WithinLine,
    /// More lines may come between it and what follows.
    Multiline,
}

impl CandidateFeatures {
    /// In the order of [`FEATURES`].
    pub(super) fn values(&self) -> [f32; FEATURES.len()] {
        FEATURES.map(|(_, value)| value(self))
    }

    /// 0 where the search has not found the line.
    fn if_searched(&self, value: impl Fn(f32, f32) -> f32) -> f32 {
        self.searched.map_or(0.0, |(log_p, best)| value(log_p, best))
    }

    /// 0 where the line is no infill candidate.
    fn if_infill(&self, value: impl Fn(InfillMatch) -> f32) -> f32 {
        self.infill.map_or(0.0, value)
    }

    /// 0 where the line is no renamed clone.
    fn if_renamed(&self, value: impl Fn(CloneMatch) -> f32) -> f32 {
        self.renamed.map_or(0.0, value)
    }

    /// 0 where the model was not asked.
    fn if_by_model(&self, value: impl Fn(ModelLogP, f32) -> f32) -> f32 {
        self.by_model.map_or(0.0, |(by_model, best)| value(by_model, best))
    }

    fn suffix_log_p_per_token(&self) -> f32 {
        let (log_p, n) = self.suffix;
        if n == 0 { 0.0 } else { (log_p / n as f32).max(-8.0) / 4.0 }
    }
}

/// ln (1 + n)
fn ln(n: u32) -> f32 {
    ((1 + n) as f32).ln()
}

/// How one feature is computed.
type Compute = fn(&CandidateFeatures) -> f32;

/// The features in the order in which the weights have them. Another order or another name needs new weights.
pub(in crate::complete) const FEATURES: [Feature<Compute>; 72] = [
    ("constant", |_| 1.0),
    ("searched", |of| of.if_searched(|_, _| 1.0)),
    ("search: ln p", |of| of.if_searched(|log_p, _| log_p.max(-12.0) / 4.0)),
    ("search: is best", |of| of.if_searched(|log_p, best| flag(log_p >= best))),
    ("search: ln p below the best", |of| of.if_searched(|log_p, best| (log_p - best).max(-4.0))),
    ("memory: ln p of the suffix per token", CandidateFeatures::suffix_log_p_per_token),
    ("infill", |of| of.if_infill(|_| 1.0)),
    ("infill: ln tokens before", |of| of.if_infill(|infill| ln(infill.n_before))),
    ("infill: ln tokens after", |of| of.if_infill(|infill| ln(infill.n_after))),
    ("infill: 8 tokens after", |of| of.if_infill(|infill| flag(infill.n_after >= 8))),
    ("infill: ln occurrences", |of| of.if_infill(|infill| ln(infill.n_occurrences as u32))),
    ("infill: most tokens before", |of| of.if_infill(|infill| flag(infill.n_before == of.most_infill.0))),
    ("infill: most tokens after", |of| {
        of.if_infill(|infill| flag(infill.n_after == of.most_infill.1 && infill.n_after > 0))
    }),
    ("infill: from this file", |of| of.if_infill(|infill| flag(infill.is_from_this_file))),
    ("infill: searched too", |of| of.if_infill(|_| flag(of.searched.is_some()))),
    ("ln tokens", |of| ln(of.n_tokens as u32)),
    ("renamed clone", |of| of.if_renamed(|_| 1.0)),
    ("renamed clone: ln lines before", |of| of.if_renamed(|clone| ln(clone.n_before))),
    ("renamed clone: ln lines after", |of| of.if_renamed(|clone| ln(clone.n_after))),
    ("renamed clone: ln renamed", |of| of.if_renamed(|clone| ln(clone.n_renamed))),
    ("renamed clone: ln clashes", |of| of.if_renamed(|clone| ln(clone.n_clashes))),
    ("renamed clone: found otherwise too", |of| of.if_renamed(|_| flag(of.searched.is_some() || of.infill.is_some()))),
    ("model", |of| of.if_by_model(|_, _| 1.0)),
    ("model: ln p", |of| of.if_by_model(|by_model, _| by_model.log_p.max(-24.0) / 8.0)),
    ("model: ln p below the best", |of| of.if_by_model(|by_model, best| (by_model.log_p - best).max(-8.0) / 2.0)),
    ("model: ln p per token", |of| of.if_by_model(|by_model, _| (by_model.log_p / (1 + of.n_tokens) as f32).max(-6.0))),
    ("members: ln existing", |of| ln(of.members.n_existing.into())),
    ("members: ln missing", |of| ln(of.members.n_missing.into())),
    ("members: ln wrong calls", |of| ln(of.members.n_wrong_calls.into())),
    ("position: end of the line", |of| flag(of.position == Position::LineEnd)),
    ("position: within the line", |of| flag(of.position == Position::WithinLine)),
    ("position: more lines may follow", |of| flag(of.position == Position::Multiline)),
    ("model: is best", |of| of.if_by_model(|by_model, best| flag(by_model.log_p >= best))),
    ("model: ln p of the first token", |of| of.if_by_model(|by_model, _| by_model.first.max(-8.0) / 4.0)),
    ("model: ln p of the end", |of| of.if_by_model(|by_model, _| by_model.last.max(-8.0) / 4.0)),
    ("model: ln p of the least probable token", |of| of.if_by_model(|by_model, _| by_model.least.max(-8.0) / 4.0)),
    ("share of tokens from the model", |of| of.n_from_model as f32 / of.n_tokens.max(1) as f32),
    ("ends open, next deeper", |of| of.context.meets(LineEnd::Open, NextLine::Deeper)),
    ("ends open, next as deep", |of| of.context.meets(LineEnd::Open, NextLine::AsDeep)),
    ("ends open, next less deep", |of| of.context.meets(LineEnd::Open, NextLine::LessDeep)),
    ("ends open, next blank", |of| of.context.meets(LineEnd::Open, NextLine::Blank)),
    ("ends open, next nothing", |of| of.context.meets(LineEnd::Open, NextLine::Nothing)),
    ("ends semicolon, next deeper", |of| of.context.meets(LineEnd::Semicolon, NextLine::Deeper)),
    ("ends semicolon, next as deep", |of| of.context.meets(LineEnd::Semicolon, NextLine::AsDeep)),
    ("ends semicolon, next less deep", |of| of.context.meets(LineEnd::Semicolon, NextLine::LessDeep)),
    ("ends semicolon, next blank", |of| of.context.meets(LineEnd::Semicolon, NextLine::Blank)),
    ("ends semicolon, next nothing", |of| of.context.meets(LineEnd::Semicolon, NextLine::Nothing)),
    ("ends comma, next deeper", |of| of.context.meets(LineEnd::Comma, NextLine::Deeper)),
    ("ends comma, next as deep", |of| of.context.meets(LineEnd::Comma, NextLine::AsDeep)),
    ("ends comma, next less deep", |of| of.context.meets(LineEnd::Comma, NextLine::LessDeep)),
    ("ends comma, next blank", |of| of.context.meets(LineEnd::Comma, NextLine::Blank)),
    ("ends comma, next nothing", |of| of.context.meets(LineEnd::Comma, NextLine::Nothing)),
    ("ends close, next deeper", |of| of.context.meets(LineEnd::Close, NextLine::Deeper)),
    ("ends close, next as deep", |of| of.context.meets(LineEnd::Close, NextLine::AsDeep)),
    ("ends close, next less deep", |of| of.context.meets(LineEnd::Close, NextLine::LessDeep)),
    ("ends close, next blank", |of| of.context.meets(LineEnd::Close, NextLine::Blank)),
    ("ends close, next nothing", |of| of.context.meets(LineEnd::Close, NextLine::Nothing)),
    ("ends operator, next deeper", |of| of.context.meets(LineEnd::Operator, NextLine::Deeper)),
    ("ends operator, next as deep", |of| of.context.meets(LineEnd::Operator, NextLine::AsDeep)),
    ("ends operator, next less deep", |of| of.context.meets(LineEnd::Operator, NextLine::LessDeep)),
    ("ends operator, next blank", |of| of.context.meets(LineEnd::Operator, NextLine::Blank)),
    ("ends operator, next nothing", |of| of.context.meets(LineEnd::Operator, NextLine::Nothing)),
    ("ends other, next deeper", |of| of.context.meets(LineEnd::Other, NextLine::Deeper)),
    ("ends other, next as deep", |of| of.context.meets(LineEnd::Other, NextLine::AsDeep)),
    ("ends other, next less deep", |of| of.context.meets(LineEnd::Other, NextLine::LessDeep)),
    ("ends other, next blank", |of| of.context.meets(LineEnd::Other, NextLine::Blank)),
    ("ends other, next nothing", |of| of.context.meets(LineEnd::Other, NextLine::Nothing)),
    ("names: ln unknown", |of| f32::from(1 + of.context.n_unknown).ln()),
    ("names: all known", |of| flag(of.context.n_unknown == 0)),
    ("names: ln known", |of| f32::from(1 + of.context.n_known).ln()),
    ("line is nearby already", |of| flag(of.context.is_repeated)),
    ("ends what the next line continues", |of| flag(of.context.ends_what_continues)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct() {
        let names: std::collections::BTreeSet<&str> = FEATURES.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), FEATURES.len());
    }

    #[test]
    fn what_the_model_gives_a_line_is_read_by_its_parts() {
        let by_model = [0.5, 0.125, 0.25].into_iter().fold(ModelLogP::default(), ModelLogP::then);
        let features = |best: f32, n_from_model: usize| CandidateFeatures {
            searched: None,
            by_model: Some((by_model, best)),
            suffix: (0.0, 0),
            infill: None,
            most_infill: (0, 0),
            renamed: None,
            n_tokens: 2,
            n_from_model,
            members: MemberCounts::default(),
            position: Position::WithinLine,
            context: ContextFeatures {
                end: LineEnd::Semicolon,
                next: NextLine::Blank,
                n_known: 0,
                n_unknown: 0,
                is_repeated: false,
                ends_what_continues: false,
            },
        };
        let f = features(by_model.log_p, 1).values();
        let log2 = [f[33], f[34], f[35]].map(|feature| (4.0 * feature / 2f32.ln()).round());
        assert_eq!((f[32], log2, f[36]), (1.0, [-1.0, -2.0, -3.0], 0.5));
        assert_eq!(f[29..32], [0.0, 1.0, 0.0], "where it would be");
        assert_eq!((f[37..67].iter().sum::<f32>(), f[37 + 5 + 3]), (1.0, 1.0), "one end meets one next line");
        let f = features(by_model.log_p + 1.0, 0).values();
        assert_eq!((f[32], f[36]), (0.0, 0.0), "another line is more probable");
    }
}
