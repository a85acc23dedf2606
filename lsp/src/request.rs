//! The requests and notifications that an editor sends between `initialize` and `shutdown`, one file each. The
//! notifications about one document share a file.

pub(crate) mod document_sync;
pub(crate) mod configuration;
pub(crate) mod inline_completion;
pub(crate) mod execute_command;
