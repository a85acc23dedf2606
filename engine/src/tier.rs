//! The tiers of the memory and of the symbols: whose code it is, nearest first.

/// Whose code it is, nearest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// The file that is being written.
    File,
    /// Other files that are open.
    Open,
    /// The other files of the workspace.
    Workspace,
    /// The sources of the locked dependencies.
    Dependencies,
    /// The standard library.
    Std,
}

/// How many tiers there are.
pub const N_TIERS: usize = 5;

impl Tier {
    /// All tiers, nearest first.
    pub const ALL: [Self; N_TIERS] = [Self::File, Self::Open, Self::Workspace, Self::Dependencies, Self::Std];
}
