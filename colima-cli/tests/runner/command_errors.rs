//! What a failure looks like, and which code it exits with.

use std::io;

use colima::{
    command_error::{CommandError, ErrorKind},
    exit_code::ExitCode,
    state_dir::StateDirError,
};

#[test]
fn what_why_and_what_to_do() {
    let source = StateDirError::Directory {
        path: "/h/work".into(),
        source: io::Error::other("no space left on device"),
    };
    let error = CommandError::new(ErrorKind::Failure, "colima [profile=work] did not start")
        .caused_by(&source)
        .because("last console line: \x1b[31mpanic")
        .hint("colima logs work --serial");
    insta::assert_snapshot!(error);
}

#[test]
fn codes_are_as_documented() {
    for (kind, code) in [
        (ErrorKind::Failure, 1),
        (ErrorKind::Usage, 2),
        (ErrorKind::Config, 2),
        (ErrorKind::NotRunning, 3),
        (ErrorKind::NoSuchProfile, 3),
        (ErrorKind::MissingDependency, 4),
        (ErrorKind::Timeout, 5),
        (ErrorKind::Busy, 6),
        (ErrorKind::NotYet, 7),
        (ErrorKind::Interrupted, 130),
    ] {
        assert_eq!(CommandError::new(kind, "x").exit_code().number(), code);
    }
    assert_eq!(ExitCode::Ok.number(), 0);
}
