//! The program `colima`.

fn main() -> std::process::ExitCode {
    colima::run(
        std::env::args_os(),
        &colima::environment::Environment::read(),
    )
    .into()
}
