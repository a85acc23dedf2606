//! What a sandbox consists of on this machine, and what its user insists on.

use std::fmt;

/// How much confinement is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Every layer, or nothing runs.
    Require,
    /// The layers that this machine offers; the report names those that are missing.
    #[default]
    BestEffort,
    /// A copy, a cleared environment, a process group and a clock, nothing else.
    Off,
}

/// One way in which a command is confined, beside the copy, the environment, the group and the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Layer {
    /// Memory, processor time, file size, open files, core dumps.
    Limits,
    /// A number of processes that binds root too: the command runs under another user id.
    Processes,
    /// Process ids, network and IPC of its own: nothing to connect to, nobody to signal, no survivor.
    Namespaces,
    /// A root folder that holds the toolchain, the copy and nothing else.
    Root,
    /// Landlock: read the toolchain and the copy, write to the scratch folder.
    Files,
    /// No system calls to trace, mount, open sockets or load programs into the kernel.
    Calls,
}

impl Layer {
    /// All, in the order in which they are put on.
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

/// What was reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// The layers that every candidate's command has.
    pub on: Vec<Layer>,
    /// Those that this machine refuses, with its reason.
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
