//! The layers of confinement, which of them this machine offers, and which are required.

use std::fmt;

/// How much confinement is required.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Every layer is required, otherwise nothing runs.
    Require,
    /// Use the layers that this machine offers; the report names those that are missing.
    #[default]
    BestEffort,
    /// No layer: only a copy, a cleared environment, a process group and a clock.
    Off,
}

/// One way in which a command is confined, in addition to the copy, the environment, the group and the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Layer {
    /// Limits on memory, processor time, file size, open files and core dumps.
    Limits,
    /// A limit on the number of processes that holds for root too: the command runs under another user id.
    Processes,
    /// Process ids, network and IPC of its own: nothing to connect to, nobody to signal, no survivor.
    Namespaces,
    /// A root folder that contains the toolchain, the copy and nothing else.
    Root,
    /// Landlock: read the toolchain and the copy, write to the scratch folder.
    Files,
    /// No system calls to trace, mount, open sockets or load programs into the kernel.
    Calls,
}

impl Layer {
    /// All layers, in the order in which they are applied.
    pub const ALL: [Self; 6] = [Self::Limits, Self::Namespaces, Self::Root, Self::Processes, Self::Files, Self::Calls];
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Limits => "resource limits",
            Self::Processes => "process limit",
            Self::Namespaces => "own processes, network and IPC",
            Self::Root => "own root folder",
            Self::Files => "Landlock",
            Self::Calls => "system call filter",
        })
    }
}

/// The confinement of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// The layers that confine every candidate.
    pub on: Vec<Layer>,
    /// The layers that this machine does not offer, with the reason.
    pub missing: Vec<(Layer, String)>,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("copy of the tree, cleared environment, ")?;
        f.write_str(if cfg!(unix) { "process group, wall clock" } else { "wall clock" })?;
        for layer in &self.on {
            write!(f, ", {layer}")?;
        }
        if self.on.len() < Layer::ALL.len() {
            f.write_str("; without ")?;
            let mut missing = Layer::ALL.iter().filter(|layer| !self.on.contains(layer));
            if let Some(first) = missing.next() {
                write!(f, "{first}")?;
            }
            for layer in missing {
                write!(f, ", {layer}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_names_what_is_on_and_what_is_not() {
        let all = Level { on: Layer::ALL.into(), missing: Vec::new() };
        assert!(!all.to_string().contains("without") && all.to_string().contains("Landlock"), "{all}");
        let none = Level::default().to_string();
        assert!(none.contains("without resource limits, own processes") && none.ends_with("filter"), "{none}");
    }
}
