//! A matrix's bytes, split by memory node.

use std::ops::Range;

use super::AlignedBytes;
use crate::runtime::numa::Topology;

/// Chunks of equal length. Each is in the memory of the node whose threads claim it first: chunk i of n is where piece
/// i of n is. On one node that is a single buffer.
#[derive(Clone, Debug)]
pub(crate) struct NodeChunks {
    chunk_len: usize,
    /// For each node that has chunks: its first chunk and its bytes.
    parts: Vec<(usize, AlignedBytes)>,
}

impl NodeChunks {
    /// `n_chunks` chunks of zeros.
    pub(crate) fn zeroed(topology: &Topology, n_chunks: usize, chunk_len: usize) -> Self {
        let parts = (0..topology.n_nodes())
            .map(|node| (node, topology.part(node, n_chunks)))
            .filter(|(_, chunks)| !chunks.is_empty())
            .map(|(node, chunks)| {
                let place = || {
                    let mut bytes = AlignedBytes::for_weights(chunks.len() * chunk_len, node);
                    // The first thread to write to a page decides on which node it is.
                    if topology.n_nodes() > 1 {
                        bytes.as_mut_slice().fill(0);
                    }
                    bytes
                };
                (chunks.start, topology.on_node(node, place))
            })
            .collect();
        Self { chunk_len, parts }
    }

    /// The bytes of a run of chunks.
    ///
    /// # Panics
    /// If there are no such chunks, or they are not contiguous: see [`NodeChunks::runs`].
    pub(crate) fn chunks(&self, run: Range<usize>) -> &[u8] {
        let (first, bytes) = &self.parts[self.part_of(run.start)];
        &bytes.as_slice()[(run.start - first) * self.chunk_len..(run.end - first) * self.chunk_len]
    }

    /// Splits a range of chunks at the boundaries between nodes. On one node that is the range itself, or
    /// nothing if it is empty.
    pub(crate) fn runs(&self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> + '_ {
        let ends = self.parts[1..].iter().map(|(first, _)| *first).chain([range.end]);
        let mut start = range.start;
        ends.filter_map(move |end| {
            let run = start..end.min(range.end).max(start);
            start = run.end;
            (!run.is_empty()).then_some(run)
        })
    }

    /// # Panics
    /// If there is no such chunk.
    pub(crate) fn chunk_mut(&mut self, i: usize) -> &mut [u8] {
        let part = self.part_of(i);
        let (first, bytes) = &mut self.parts[part];
        &mut bytes.as_mut_slice()[(i - *first) * self.chunk_len..][..self.chunk_len]
    }

    pub(crate) fn n_bytes(&self) -> usize {
        self.parts.iter().map(|(_, bytes)| bytes.as_slice().len()).sum()
    }

    /// The index in `parts` of chunk `i`. A linear search: nodes are few, and mostly one.
    fn part_of(&self, i: usize) -> usize {
        self.parts[1..].iter().take_while(|(first, _)| *first <= i).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_node_gets_one_buffer_and_several_get_their_share() {
        for (n_nodes, n_chunks) in [(1, 0), (1, 7), (2, 7), (2, 1), (3, 50), (4, 3)] {
            let topology = Topology::for_tests(&vec![vec![0]; n_nodes]);
            let mut placed = NodeChunks::zeroed(&topology, n_chunks, 10);
            assert_eq!(placed.n_bytes(), n_chunks * 10);
            assert_eq!(placed.parts.len(), n_nodes.min(n_chunks), "{n_nodes} nodes, {n_chunks} chunks");
            (0..n_chunks).for_each(|i| placed.chunk_mut(i).fill(i as u8));
            if n_chunks == 0 {
                continue;
            }
            for (from, to) in (0..=n_chunks).flat_map(|to| (0..=to).map(move |from| (from, to))) {
                let runs: Vec<_> = placed.runs(from..to).collect();
                assert!(runs.len() <= n_nodes && runs.iter().all(|run| !run.is_empty()));
                let bytes: Vec<u8> = runs.into_iter().flat_map(|run| placed.clone().chunks(run).to_vec()).collect();
                let expected: Vec<u8> = (from..to).flat_map(|i| [i as u8; 10]).collect();
                assert_eq!(bytes, expected, "{n_nodes} nodes, {from}..{to} of {n_chunks}");
            }
        }
    }
}
