//! Memory nodes: which processors are near which memory.
//!
//! Where a machine has more than one node, workers stay on the processors of theirs, a matrix's superblocks are cut
//! into one run per node, each run is in that node's memory, and each worker claims the run of its own node first. On
//! one node none of this happens: no affinity is set and a matrix is one buffer.
//!
//! The system describes nodes in a folder (`/sys/devices/system/node` on Linux). It is validated strictly: with
//! anything unexpected in it, the machine counts as one node.

use std::io::Read as _;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

/// More nodes than any machine has: a description with more is rejected.
const MAX_NODES: usize = 64;
/// What Linux can bind a thread to without growing its processor set.
const MAX_CPUS: usize = 1024;
/// A list of 1,024 processors, each on its own, is shorter.
const MAX_FILE: u64 = 8192;

/// Why a description of memory nodes is rejected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// A file or folder cannot be read.
    #[error("cannot read the memory nodes of this machine ({0}); it is taken for one node")]
    Io(#[from] std::io::Error),
    /// A `cpulist` file does not hold a list of processors.
    #[error("`{0}` is not a list of processors such as `0-3,8`; the machine is taken for one node")]
    List(String),
    /// A processor belongs to two nodes.
    #[error("processor {cpu} belongs to two memory nodes; the machine is taken for one node")]
    Overlap {
        /// The number of the processor.
        cpu: usize,
    },
    /// There are more nodes than any machine has.
    #[error("more than {MAX_NODES} memory nodes; the machine is taken for one node")]
    TooMany,
}

/// The memory nodes that this process may run on; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Processors of each node, where there is more than one node; otherwise empty.
    cpus: Vec<Vec<usize>>,
}

impl Topology {
    /// One node: no thread is bound and no memory is placed.
    pub const ONE: Self = Self { cpus: Vec::new() };

    /// This machine's, restricted to the processors that this process may use.
    pub fn machine() -> &'static Self {
        static MACHINE: OnceLock<Topology> = OnceLock::new();
        MACHINE.get_or_init(|| {
            let folder = Path::new("/sys/devices/system/node");
            usable_cpus().and_then(|usable| Self::read(folder, &usable).ok()).unwrap_or(Self::ONE)
        })
    }

    /// Reads a folder that looks like `/sys/devices/system/node`. Processors that are not `usable` (offline, or
    /// forbidden to this process) do not count, nor do nodes without any.
    pub fn read(folder: &Path, usable: &[usize]) -> Result<Self, TopologyError> {
        let mut nodes = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("node")).and_then(|n| n.parse::<usize>().ok());
            let Some(number) = number else { continue };
            if nodes.len() == MAX_NODES {
                return Err(TopologyError::TooMany);
            }
            let mut text = String::new();
            let file = std::fs::File::open(folder.join(&name).join("cpulist"))?;
            file.take(MAX_FILE).read_to_string(&mut text)?;
            nodes.push((number, cpu_list(&text)?));
        }
        nodes.sort_unstable();
        let mut seen = [false; MAX_CPUS];
        for cpu in nodes.iter().flat_map(|(_, cpus)| cpus) {
            if std::mem::replace(&mut seen[*cpu], true) {
                return Err(TopologyError::Overlap { cpu: *cpu });
            }
        }
        let usable = |cpus: Vec<usize>| cpus.into_iter().filter(|cpu| usable.contains(cpu)).collect::<Vec<_>>();
        let mut cpus: Vec<_> = nodes.into_iter().map(|(_, cpus)| usable(cpus)).collect();
        cpus.retain(|cpus| !cpus.is_empty());
        Ok(if cpus.len() > 1 { Self { cpus } } else { Self::ONE })
    }

    /// The number of memory nodes, at least 1.
    pub fn n_nodes(&self) -> usize {
        self.cpus.len().max(1)
    }

    /// The range of `n` items that belongs to a node, in proportion to its processors.
    pub(crate) fn part(&self, node: usize, n: usize) -> Range<usize> {
        if self.cpus.is_empty() {
            return 0..n;
        }
        let n_cpus = |nodes: &[Vec<usize>]| nodes.iter().map(Vec::len).sum::<usize>();
        let (before, all) = (n_cpus(&self.cpus[..node]), n_cpus(&self.cpus));
        n * before / all..n * (before + self.cpus[node].len()) / all
    }

    /// The node to which item `i` of `n` belongs: see [`Topology::part`].
    pub(crate) fn node_of_part(&self, i: usize, n: usize) -> usize {
        (0..self.n_nodes()).find(|node| self.part(*node, n).contains(&i)).unwrap_or(0)
    }

    /// The node that the calling thread runs on now.
    pub(crate) fn current_node(&self) -> usize {
        if self.cpus.is_empty() {
            return 0;
        }
        let cpu = current_cpu();
        self.cpus.iter().position(|cpus| cpus.contains(&cpu)).unwrap_or(0)
    }

    /// Binds the calling thread to a node. Returns whether it did: it does not on a machine of one node, or where
    /// the system refuses.
    pub(crate) fn bind(&self, node: usize) -> bool {
        self.cpus.get(node).is_some_and(|cpus| bind_to(cpus))
    }

    /// Calls `work` on a node: on this thread if there is one node, else on a new thread bound to the node.
    pub(crate) fn on_node<T: Send>(&self, node: usize, work: impl FnOnce() -> T + Send) -> T {
        if self.cpus.is_empty() {
            return work();
        }
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.bind(node);
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Nodes with these processors, for tests.
    #[cfg(test)]
    pub(crate) fn for_tests(cpus: &[Vec<usize>]) -> Self {
        if cpus.len() > 1 { Self { cpus: cpus.to_vec() } } else { Self::ONE }
    }
}

/// `0-3,8,10-11`, and the kernel's `first-last:used/group` form; blanks and an empty list are fine.
fn cpu_list(text: &str) -> Result<Vec<usize>, TopologyError> {
    let bad = || TopologyError::List(text.chars().take(60).collect());
    let number = |text: &str| match text.trim().parse::<usize>() {
        Ok(n) if n < MAX_CPUS && text.trim().bytes().all(|byte| byte.is_ascii_digit()) => Ok(n),
        _ => Err(bad()),
    };
    let mut cpus = Vec::new();
    if text.trim().is_empty() {
        return Ok(cpus);
    }
    for item in text.trim().split(',') {
        let (range, stride) = item.split_once(':').map_or((item, None), |(range, stride)| (range, Some(stride)));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (number(first)?, number(last)?);
        let (used, group) = match stride.map(|stride| stride.split_once('/').ok_or_else(bad)) {
            Some(stride) => stride.and_then(|(used, group)| Ok((number(used)?, number(group)?)))?,
            None => (1, 1),
        };
        if first > last || used == 0 || used > group {
            return Err(bad());
        }
        cpus.extend((first..=last).filter(|cpu| (cpu - first) % group < used));
    }
    cpus.sort_unstable();
    cpus.dedup();
    Ok(cpus)
}

/// The processors that this process may use; `None` where the system does not say.
fn usable_cpus() -> Option<Vec<usize>> {
    #[cfg(target_os = "linux")]
    {
        let set = rustix::thread::sched_getaffinity(None).ok()?;
        Some((0..MAX_CPUS).filter(|cpu| set.is_set(*cpu)).collect())
    }
    #[cfg(not(target_os = "linux"))]
    None
}

fn current_cpu() -> usize {
    #[cfg(target_os = "linux")]
    {
        rustix::thread::sched_getcpu()
    }
    #[cfg(not(target_os = "linux"))]
    0
}

fn bind_to(cpus: &[usize]) -> bool {
    #[cfg(target_os = "linux")]
    {
        let mut set = rustix::thread::CpuSet::new();
        cpus.iter().for_each(|cpu| set.set(*cpu));
        rustix::thread::sched_setaffinity(None, &set).is_ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = cpus;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder as the system has it: `("node0/cpulist", "0-3\n")`, and so on.
    fn read(files: &[(&str, &str)], usable: &[usize]) -> Result<Topology, TopologyError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        Topology::read(folder.path(), usable)
    }

    const EIGHT: [usize; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

    #[test]
    fn two_nodes_of_four_processors_are_found() {
        let files = [("node1/cpulist", "4-7\n"), ("node0/cpulist", "0-3\n"), ("online", "0-1\n"), ("power/x", "")];
        let topology = read(&files, &EIGHT).expect("a well-formed folder");
        assert_eq!(topology.cpus, [vec![0, 1, 2, 3], vec![4, 5, 6, 7]]);
        assert_eq!((topology.part(0, 9), topology.part(1, 9)), (0..4, 4..9));
        assert_eq!([0, 3, 4, 8].map(|i| topology.node_of_part(i, 9)), [0, 0, 1, 1]);
    }

    #[test]
    fn processors_that_may_not_be_used_do_not_count() {
        let files = [("node0/cpulist", "0-3"), ("node1/cpulist", "4-7"), ("node2/cpulist", "\n")];
        let topology = read(&files, &[0, 2, 5]).expect("a well-formed folder");
        assert_eq!(topology.cpus, [vec![0, 2], vec![5]]);
        assert_eq!((topology.part(0, 9), topology.part(1, 9)), (0..6, 6..9));
        assert_eq!(read(&files, &[1, 3]).expect("a well-formed folder"), Topology::ONE);
        assert_eq!(read(&files, &[]).expect("a well-formed folder"), Topology::ONE);
    }

    #[test]
    fn on_one_node_nothing_is_bound() {
        assert_eq!(read(&[("node0/cpulist", "0-7\n")], &EIGHT).expect("a well-formed folder"), Topology::ONE);
        assert_eq!(read(&[("has_cpu", "")], &EIGHT).expect("a well-formed folder"), Topology::ONE);
        assert_eq!((Topology::ONE.n_nodes(), Topology::ONE.part(0, 5), Topology::ONE.current_node()), (1, 0..5, 0));
        assert!(!Topology::ONE.bind(0));
        let here = std::thread::current().id();
        assert_eq!(Topology::ONE.on_node(0, || std::thread::current().id()), here);
    }

    #[test]
    fn lists_are_read_in_every_form_the_system_writes() {
        let list = |text| cpu_list(text).map_err(|error| error.to_string());
        assert_eq!(list("0-3,8,10-11\n"), Ok(vec![0, 1, 2, 3, 8, 10, 11]));
        assert_eq!(list(" 5 , 2-3"), Ok(vec![2, 3, 5]));
        assert_eq!(list("0-7:1/2"), Ok(vec![0, 2, 4, 6]));
        assert_eq!(list("0-7:2/4,1"), Ok(vec![0, 1, 4, 5]));
        assert_eq!(list("\n"), Ok(vec![]));
        assert_eq!(list("1023"), Ok(vec![1023]));
    }

    #[test]
    fn malformed_lists_are_refused() {
        let hostile = [
            "0-",
            "-3",
            "3-1",
            "a",
            "0,,1",
            "0-3:",
            "0-3:0/2",
            "0-3:3/2",
            "0-3:1/0",
            "0-3:1",
            "1024",
            "0-99999999999",
            "18446744073709551616",
            "+1",
            "0x3",
            "0-3-5",
            "0\u{0}",
            "٣",
        ];
        for text in hostile {
            assert!(matches!(cpu_list(text), Err(TopologyError::List(_))), "{text:?}");
            assert!(read(&[("node0/cpulist", "0"), ("node1/cpulist", text)], &EIGHT).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_inconsistent_folder_is_rejected() {
        assert!(matches!(read(&[("node0/cpulist", "0-3"), ("node1/meminfo", "")], &EIGHT), Err(TopologyError::Io(_))));
        let twice = read(&[("node0/cpulist", "0-3"), ("node1/cpulist", "3-7")], &EIGHT);
        assert!(matches!(twice, Err(TopologyError::Overlap { cpu: 3 })));
        let long = "1,".repeat(1 << 20);
        assert!(read(&[("node0/cpulist", &long), ("node1/cpulist", "0")], &EIGHT).is_err());
        let many: Vec<_> = (0..=MAX_NODES).map(|i| format!("node{i}/cpulist")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), "")).collect();
        assert!(matches!(read(&many, &EIGHT), Err(TopologyError::TooMany)));
        assert!(Topology::read(Path::new("/nonexistent"), &EIGHT).is_err());
        let strange = [("node0/cpulist", "0"), ("nodeX/cpulist", "1"), ("node99999999999999999999/cpulist", "2")];
        assert_eq!(read(&strange, &EIGHT).expect("other names are other things"), Topology::ONE);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_bound_thread_runs_where_it_should() {
        let usable = usable_cpus().expect("Linux says");
        let topology = Topology::for_tests(&[vec![usable[0]], vec![*usable.last().expect("at least one")]]);
        for node in 0..2 {
            assert_eq!(topology.on_node(node, current_cpu), topology.cpus[node][0]);
        }
        assert_eq!(usable_cpus(), Some(usable), "the calling thread is where it was");
    }
}
