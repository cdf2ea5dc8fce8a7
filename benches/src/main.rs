//! `compare`: runs comparisons, keeps their results, and shows them in the README.
#![expect(clippy::print_stdout, reason = "this is a program for people")]

use std::{collections::VecDeque, fs, path::PathBuf, process::ExitCode};

use colima_benches::{
    Result, at_rest, cold_start, mounts_native, mounts_vm, native,
    product::Setup,
    report::{Row, replace_results},
    resume, through_vm,
};
use tokio::signal::unix::{SignalKind, signal};

const ROWS: [&str; 7] = [
    "cold-start",
    "resume",
    "through-vm",
    "native",
    "mounts-native",
    "mounts-vm",
    "at-rest",
];

const USAGE: &str = "usage: compare [OPTION...] ROW...
rows: cold-start resume through-vm native mounts-native mounts-vm at-rest, or all
  --work DIRECTORY      for images and disks, kept for the next run (target/bench)
  --programs DIRECTORY  with colima, colima-guest-* and colima-bench-peer-static (this program's own)
  --busybox FILE        statically linked; cold-start needs it
  --rounds N            how often slow measurements are repeated (3)
A row that was measured goes into results/ and into README.md of this crate.";

fn main() -> ExitCode {
    // The ends of a mount have runtimes like those of the product.
    let mut arguments = std::env::args_os().skip(1);
    if let (Some(role), Some(directory)) = (arguments.next(), arguments.next()) {
        match role.to_str() {
            Some(mounts_native::SERVER) => return exit_code(mounts_native::serve(&directory)),
            Some(mounts_native::CLIENT) => return exit_code(mounts_native::mount(&directory)),
            _ => {}
        }
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return exit_code(Err(error.into())),
    };
    let code = runtime.block_on(run());
    // A client that still waits in a thread of its own must not delay the end.
    runtime.shutdown_background();
    code
}

async fn run() -> ExitCode {
    let arguments = std::env::args().skip(1).collect::<VecDeque<_>>();
    if arguments.len() == 1 && arguments[0] == native::FAR_SIDE {
        return exit_code(native::far_side().await);
    }
    match parse(arguments) {
        Ok((setup, rows)) => exit_code(compare(&setup, &rows).await),
        Err(error) => {
            println!("{error}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn exit_code(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: VecDeque<String>) -> Result<(Setup, Vec<String>)> {
    let beside = std::env::current_exe()?;
    let beside = beside.parent().ok_or("this program is nowhere")?.to_owned();
    let mut setup = Setup {
        work: "target/bench".into(),
        programs: beside,
        busybox: None,
        rounds: 3,
        progress: |news| println!("  {news}"),
    };
    let mut rows = Vec::new();
    while let Some(word) = arguments.pop_front() {
        let mut value = || {
            arguments
                .pop_front()
                .ok_or_else(|| format!("{word} needs a value"))
        };
        match word.as_str() {
            "--work" => setup.work = value()?.into(),
            "--programs" => setup.programs = value()?.into(),
            "--busybox" => setup.busybox = Some(value()?.into()),
            "--rounds" => setup.rounds = value()?.parse()?,
            "all" => rows.extend(ROWS.map(str::to_owned)),
            row if ROWS.contains(&row) => rows.push(word),
            _ => return Err(format!("{word} is no row and no option").into()),
        }
    }
    if rows.is_empty() || setup.rounds == 0 {
        return Err("nothing to do".into());
    }
    fs::create_dir_all(&setup.work)?;
    setup.work = fs::canonicalize(&setup.work)?;
    setup.programs = fs::canonicalize(&setup.programs)?;
    Ok((setup, rows))
}

/// Runs all rows, also after one that failed; ends whatever they started, also when interrupted.
async fn compare(setup: &Setup, rows: &[String]) -> Result<()> {
    let mut failed = Vec::new();
    for row in rows {
        println!("{row} ...");
        let measured = tokio::select! {
            measured = measure(setup, row) => measured,
            () = interrupted() => {
                clean_up(setup).await;
                return Err("interrupted".into());
            }
        };
        match measured {
            Ok(row) => {
                row.write(&crate_directory().join("results"))?;
                println!("\n{}", row.markdown());
            }
            Err(error) => {
                println!("{row} could not be measured: {error}");
                clean_up(setup).await;
                failed.push(row.as_str());
            }
        }
    }
    update_readme()?;
    if failed.is_empty() {
        return Ok(());
    }
    Err(format!("not measured: {}", failed.join(", ")).into())
}

/// INT from a person, TERM from `timeout`.
async fn interrupted() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated => {}
    }
}

async fn measure(setup: &Setup, row: &str) -> Result<Row> {
    match row {
        "cold-start" => cold_start::run(setup).await,
        "resume" => resume::run(setup).await,
        "through-vm" => through_vm::run(setup).await,
        "native" => native::run(setup).await,
        "mounts-native" => mounts_native::run(setup).await,
        "mounts-vm" => mounts_vm::run(setup).await,
        _ => at_rest::run(setup).await,
    }
}

/// Machines of `cold-start` and servers end with their handles; an instance has to be told.
async fn clean_up(setup: &Setup) {
    let Ok(product) = setup.product() else { return };
    if !product.ssh_config().exists() {
        return;
    }
    if let Err(error) = product.delete().await {
        println!("left behind: {error}");
    }
}

fn update_readme() -> Result<()> {
    let directory = crate_directory();
    let mut results = String::new();
    for name in ROWS {
        if let Some(row) = Row::read(&directory.join("results"), name)? {
            results.push_str(&row.markdown());
        }
    }
    let readme = directory.join("README.md");
    let text = fs::read_to_string(&readme)?;
    Ok(fs::write(readme, replace_results(&text, &results)?)?)
}

/// Results belong to the checkout that the program was built in.
fn crate_directory() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}
