//! Do the tests pass? The crate is built with its tests once for all candidates, and each file's tests are run alone.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use nanochat_engine::Cancel;

use super::{CheckError, Checker};
use crate::sandbox::{Access, Invocation, SandboxError};

/// Time limit of the tests of one file.
const MAX_TEST_TIME: Duration = Duration::from_secs(10);

impl Checker {
    /// Whether the tests of each file pass, with these texts in the files' places; the texts compile together. `None`
    /// if they do not compile together with their tests.
    pub(crate) fn tests(
        &self,
        texts: &BTreeMap<&str, &str>,
        cancel: &Cancel,
    ) -> Result<Option<BTreeMap<String, bool>>, CheckError> {
        cancel.check().map_err(SandboxError::from)?;
        let Some(unit_idx) = texts.keys().find_map(|file| self.units_of(file).first()) else { return Ok(None) };
        let (tree, scratch) = (self.sandbox.tree(0), self.sandbox.scratch(0));
        let write = |file: &str, text: &str| {
            let path = tree.join(file);
            std::fs::write(&path, text).map_err(|source| CheckError::Write { path, source })
        };
        let program = scratch.join("tests");
        let compiled = Invocation {
            args: with_tests(&self.units[*unit_idx].invocation.args, &program),
            ..self.units[*unit_idx].invocation.clone()
        };
        let built = texts
            .iter()
            .try_for_each(|(file, text)| write(file, text))
            .and_then(|()| Ok(self.sandbox.run(&compiled, self.options.timeout, cancel)?));
        texts.keys().try_for_each(|file| write(file, &self.originals[*file]))?;
        if !built?.success {
            return Ok(None);
        }
        let mut passed = BTreeMap::new();
        for file in texts.keys() {
            let module = file.trim_start_matches("src/").trim_end_matches(".rs").replace('/', "::");
            let run = Invocation {
                program: program.clone().into_os_string(),
                args: [format!("{module}::"), "--test-threads=1".to_owned()].map(OsString::from).into(),
                env: Vec::new(),
                folder: scratch.clone(),
            };
            let finished = self.sandbox.run_as(Access::Execute, &run, MAX_TEST_TIME, cancel)?;
            let said = String::from_utf8_lossy(&finished.stdout);
            // A test that ends the process early, or none at all, has not passed.
            let some = said.contains("test result: ok.") && !said.contains("test result: ok. 0 passed");
            passed.insert((*file).to_owned(), finished.success && some);
        }
        Ok(Some(passed))
    }
}

/// The same compilation, of a program that runs the tests.
fn with_tests(args: &[OsString], program: &std::path::Path) -> Vec<OsString> {
    let mut kept: Vec<OsString> = Vec::new();
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--crate-type") => drop(args.next()),
            Some("--emit=metadata") => kept.push("--emit=link".into()),
            Some("--test") => {}
            // The library to link is in the same folder as its metadata.
            Some(arg) if arg.ends_with(".rmeta") => {
                kept.push(format!("{}.rlib", arg.trim_end_matches(".rmeta")).into())
            }
            _ => kept.push(arg.clone()),
        }
    }
    kept.extend(["--test".into(), "-o".into(), program.into()]);
    kept
}
