//! Progress that a run reports.

/// Progress of a run, in the order in which it happens.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// cargo builds the suite's packages unchanged, before any completion is compiled.
    Building {
        /// Number of packages, dependencies not counted.
        packages: usize,
    },
    /// The holes of one more project have gone through the hole filters.
    #[serde(rename = "gated")]
    Filtered {
        /// Projects that are finished.
        done: usize,
        /// Projects of this run or shard.
        total: usize,
    },
    /// A system has filled one more hole.
    Filled {
        /// The system's name.
        system: String,
        /// Holes that it has filled, or left open.
        done: usize,
        /// Holes of this run or shard.
        total: usize,
    },
    /// Some verdicts have been checked again, each completion compiled alone.
    Audited {
        /// Verdicts that have been checked.
        done: usize,
        /// Verdicts that will be.
        total: usize,
    },
    /// The completions of a system for one more project have been judged.
    Scored {
        /// The system's name.
        system: String,
        /// Holes whose completions are judged.
        done: usize,
        /// Holes of this run or shard.
        total: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_keep_the_names_that_other_programs_read() {
        let text = |event: &Event| serde_json::to_string(event).expect("it is plain data");
        assert_eq!(text(&Event::Filtered { done: 1, total: 2 }), r#"{"event":"gated","done":1,"total":2}"#);
    }
}
