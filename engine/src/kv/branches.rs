//! Branches: texts that continue one sequence in several ways. Each shares the cache of what it continues up to there.

use nanochat_kernels::KvCache;

use crate::model::forward::Run;

/// The position after so many tokens of the active sequence or of a branch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BranchPos {
    branch: Option<usize>,
    n_tokens: usize,
}

impl BranchPos {
    pub(super) fn of_active(n_tokens: usize) -> Self {
        Self { branch: None, n_tokens }
    }

    /// One token further on the same sequence.
    pub(crate) fn next(self) -> Self {
        Self { n_tokens: self.n_tokens + 1, ..self }
    }

    pub(super) fn n_tokens(self) -> usize {
        self.n_tokens
    }
}

/// The branches of one active sequence; worth nothing with another.
#[derive(Debug, Default)]
pub(crate) struct Branches {
    branches: Vec<Branch>,
}

#[derive(Debug)]
struct Branch {
    caches: Vec<KvCache>,
    n_tokens: usize,
}

impl Branches {
    /// Makes room for so many tokens after each position: at the end of a branch in that branch, elsewhere in a fork.
    /// Returns where they then end, each in a branch of its own.
    pub(super) fn make_room(
        &mut self,
        active: &[KvCache],
        next: impl Iterator<Item = (BranchPos, usize)>,
    ) -> Vec<BranchPos> {
        let mut ends = Vec::new();
        for (BranchPos { branch, n_tokens }, n) in next {
            let at_end = branch.filter(|idx| self.branches[*idx].n_tokens == n_tokens);
            let idx = at_end.unwrap_or_else(|| {
                let caches = branch.map_or(active, |idx| &self.branches[idx].caches);
                let caches = caches.iter().map(|cache| cache.fork(n_tokens)).collect();
                self.branches.push(Branch { caches, n_tokens });
                self.branches.len() - 1
            });
            // The next to ask for the same position finds it taken, and forks.
            self.branches[idx].n_tokens += n;
            ends.push(BranchPos { branch: Some(idx), n_tokens: n_tokens + n });
        }
        ends
    }

    /// The last `n` tokens of the branches that end there.
    pub(super) fn runs(&mut self, ends: impl Iterator<Item = (BranchPos, usize)>) -> Vec<Run<'_>> {
        let mut branches: Vec<Option<&mut Branch>> = self.branches.iter_mut().map(Some).collect();
        let mut run = |(end, n): (BranchPos, usize)| {
            let branch = end.branch.and_then(|idx| branches[idx].take()).expect("each has a branch of its own");
            Run { first: end.n_tokens - n, n, caches: &mut branch.caches }
        };
        ends.map(&mut run).collect()
    }
}
