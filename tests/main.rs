//! The product as its users meet it: the real binary, real files, real exit codes.

mod support;

mod cli;
mod keystroke;
mod tidy;
mod train_to_checkpoint;
