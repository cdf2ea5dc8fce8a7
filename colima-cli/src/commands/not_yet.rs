//! Verbs of Colima's that are not there yet.

use crate::command_error::{CommandError, ErrorKind};

pub(super) fn kubernetes() -> CommandError {
    CommandError::new(
        ErrorKind::NotYet,
        "Kubernetes in the machine is not available yet",
    )
    .hint("what is, is listed by: colima --help")
}

pub(super) fn model() -> CommandError {
    CommandError::new(
        ErrorKind::NotYet,
        "language models in the machine are not available yet",
    )
    .hint("what is, is listed by: colima --help")
}
