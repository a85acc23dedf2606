//! Texts that go on behind a sequence in several ways. Each shares the cache of what it goes on from up to there.

use nanochat_kernels::KvCache;

use crate::model::forward::Run;

/// Behind so many tokens of the active sequence or of a shoot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    shoot: Option<usize>,
    n_tokens: usize,
}

impl Place {
    pub(super) fn of_active(n_tokens: usize) -> Self {
        Self { shoot: None, n_tokens }
    }

    /// One token further on the same sequence.
    pub(crate) fn next(self) -> Self {
        Self { n_tokens: self.n_tokens + 1, ..self }
    }

    pub(super) fn n_tokens(self) -> usize {
        self.n_tokens
    }
}

/// Sequences that went on behind one active sequence; worth nothing behind another.
#[derive(Debug, Default)]
pub(crate) struct Shoots {
    shoots: Vec<Shoot>,
}

#[derive(Debug)]
struct Shoot {
    caches: Vec<KvCache>,
    n_tokens: usize,
}

impl Shoots {
    /// Makes room for so many tokens behind each place: at the end of a shoot in place, elsewhere in a fork. Where they then end,
    /// each in a shoot of its own.
    pub(super) fn make_room(&mut self, active: &[KvCache], next: impl Iterator<Item = (Place, usize)>) -> Vec<Place> {
        let mut ends = Vec::new();
        for (Place { shoot, n_tokens }, n) in next {
            let at_end = shoot.filter(|idx| self.shoots[*idx].n_tokens == n_tokens);
            let idx = at_end.unwrap_or_else(|| {
                let caches = shoot.map_or(active, |idx| &self.shoots[idx].caches);
                let caches = caches.iter().map(|cache| cache.fork(n_tokens)).collect();
                self.shoots.push(Shoot { caches, n_tokens });
                self.shoots.len() - 1
            });
            // Who wants the same place next finds it gone, and forks.
            self.shoots[idx].n_tokens += n;
            ends.push(Place { shoot: Some(idx), n_tokens: n_tokens + n });
        }
        ends
    }

    /// The last `n` tokens of the shoots that end there.
    pub(super) fn runs(&mut self, ends: impl Iterator<Item = (Place, usize)>) -> Vec<Run<'_>> {
        let mut shoots: Vec<Option<&mut Shoot>> = self.shoots.iter_mut().map(Some).collect();
        let mut run = |(end, n): (Place, usize)| {
            let shoot = end.shoot.and_then(|idx| shoots[idx].take()).expect("each has a shoot of its own");
            Run { first: end.n_tokens - n, n, caches: &mut shoot.caches }
        };
        ends.map(&mut run).collect()
    }
}
