//! The controls at the two ends of the scale.

use std::collections::BTreeMap;

use nanochat_engine::Cancel;

use super::{Completion, ProjectContext, System, SystemError, Task};

/// Completes with what was cut out. It must score 100 %, or the run is invalid.
#[derive(Debug, Default)]
pub struct Truth {
    texts: BTreeMap<String, String>,
}

/// Completes with an empty text. It scores 0 %, since an empty completion is degenerate, and the hole filters drop the
/// holes where it compiles. In the table it is the floor of similarity.
#[derive(Debug)]
pub struct Empty;

impl System for Truth {
    fn name(&self) -> &str {
        "truth"
    }

    fn enter(&mut self, scene: &ProjectContext<'_>, cancel: &Cancel) -> Result<(), SystemError> {
        self.texts = scene.texts.clone();
        Ok(cancel.check()?)
    }

    fn complete(&mut self, task: &Task<'_>, _cancel: &Cancel) -> Result<Completion, SystemError> {
        let text = self.texts.get(task.file).map(String::as_str).unwrap_or_default();
        let end = text.len().checked_sub(task.suffix.len());
        Ok(end.and_then(|end| text.get(task.prefix.len()..end)).map(str::to_owned).into())
    }
}

impl System for Empty {
    fn name(&self) -> &str {
        "empty"
    }

    fn complete(&mut self, _task: &Task<'_>, _cancel: &Cancel) -> Result<Completion, SystemError> {
        Ok(Some(String::new()).into())
    }
}
